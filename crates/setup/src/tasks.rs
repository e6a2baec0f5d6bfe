//! Tasks that live as long as what started them.

use tokio::task::JoinHandle;

/// Ends tasks and waits until they have.
pub async fn end(tasks: Vec<JoinHandle<()>>) {
    for task in &tasks {
        task.abort();
    }
    for task in tasks {
        let _ = task.await;
    }
}
