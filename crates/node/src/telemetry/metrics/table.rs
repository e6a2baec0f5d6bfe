//! Families whose label values are enums: a fixed table of series.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::{MetricType, TypedMetric},
};

/// A label: an enum that knows its values.
pub trait Label: Copy + 'static {
    /// All values, in the order of their numbers.
    const ALL: &'static [Self];

    /// The number of the value.
    fn index(self) -> usize;

    /// The value as text.
    fn as_str(self) -> &'static str;
}

/// A family with one label.
pub type Table1<A, M> = Table<(A,), M>;
/// A family with two labels.
pub type Table2<A, B, M> = Table<(A, B), M>;
/// A family with three labels.
pub type Table3<A, B, C, M> = Table<(A, B, C), M>;

/// One series for each combination of labels.
#[derive(Debug)]
pub struct Table<L: Labels, M> {
    names: L::Names,
    series: Vec<M>,
}

/// One to three labels together.
pub trait Labels: Copy + 'static {
    /// Names of the labels.
    type Names: AsRef<[&'static str]> + Copy + fmt::Debug + Send + Sync + 'static;

    /// How many combinations there are.
    fn count() -> usize;

    /// The values of the combination with this number.
    fn values(index: usize) -> Vec<&'static str>;
}

impl<A: Label> Labels for (A,) {
    type Names = [&'static str; 1];

    fn count() -> usize {
        A::ALL.len()
    }

    fn values(index: usize) -> Vec<&'static str> {
        vec![A::ALL[index].as_str()]
    }
}

impl<A: Label, B: Label> Labels for (A, B) {
    type Names = [&'static str; 2];

    fn count() -> usize {
        A::ALL.len() * B::ALL.len()
    }

    fn values(index: usize) -> Vec<&'static str> {
        vec![A::ALL[index / B::ALL.len()].as_str(), B::ALL[index % B::ALL.len()].as_str()]
    }
}

impl<A: Label, B: Label, C: Label> Labels for (A, B, C) {
    type Names = [&'static str; 3];

    fn count() -> usize {
        <(A, B)>::count() * C::ALL.len()
    }

    fn values(index: usize) -> Vec<&'static str> {
        let mut values = <(A, B)>::values(index / C::ALL.len());
        values.push(C::ALL[index % C::ALL.len()].as_str());
        values
    }
}

impl<L: Labels, M> Table<L, M> {
    pub(super) fn new(names: L::Names, series: impl Fn() -> M) -> Self {
        Self { names, series: (0..L::count()).map(|_| series()).collect() }
    }
}

impl<A: Label, M> Table<(A,), M> {
    /// The series with this label.
    pub fn at(&self, a: A) -> &M {
        &self.series[a.index()]
    }
}

impl<A: Label, B: Label, M> Table<(A, B), M> {
    /// The series with these labels.
    pub fn at(&self, a: A, b: B) -> &M {
        &self.series[a.index() * B::ALL.len() + b.index()]
    }
}

impl<A: Label, B: Label, C: Label, M> Table<(A, B, C), M> {
    /// The series with these labels.
    pub fn at(&self, a: A, b: B, c: C) -> &M {
        &self.series[(a.index() * B::ALL.len() + b.index()) * C::ALL.len() + c.index()]
    }
}

/// A table of which only those series exist that were ever used: for many combinations of which few occur.
#[derive(Debug)]
pub struct Sparse<L: Labels, M> {
    names: L::Names,
    series: Arc<[OnceLock<M>]>,
    make: fn() -> M,
}

impl<L: Labels, M> Clone for Sparse<L, M> {
    fn clone(&self) -> Self {
        Self { names: self.names, series: Arc::clone(&self.series), make: self.make }
    }
}

impl<L: Labels, M> Sparse<L, M> {
    pub(super) fn new(names: L::Names, make: fn() -> M) -> Self {
        Self { names, series: (0..L::count()).map(|_| OnceLock::new()).collect(), make }
    }
}

impl<A: Label, B: Label, C: Label, M> Sparse<(A, B, C), M> {
    /// The series with these labels.
    pub fn at(&self, a: A, b: B, c: C) -> &M {
        let index = (a.index() * B::ALL.len() + b.index()) * C::ALL.len() + c.index();
        self.series[index].get_or_init(self.make)
    }
}

impl<L: Labels, M: EncodeMetric + TypedMetric> EncodeMetric for Sparse<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (index, series) in self.series.iter().enumerate() {
            if let Some(series) = series.get() {
                let labels: Vec<_> = self.names.as_ref().iter().copied().zip(L::values(index)).collect();
                series.encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// The table as the registry wants it: the same series, by reference count.
#[derive(Debug)]
pub(super) struct Family<L: Labels, M>(Table<L, M>);

impl<L: Labels, M: Clone> Table<L, M> {
    pub(super) fn family(&self) -> Family<L, M> {
        Family(Self { names: self.names, series: self.series.clone() })
    }
}

impl<L: Labels, M: EncodeMetric + TypedMetric> EncodeMetric for Family<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (index, series) in self.0.series.iter().enumerate() {
            let values = L::values(index);
            let labels: Vec<_> = self.0.names.as_ref().iter().copied().zip(values).collect();
            series.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}
