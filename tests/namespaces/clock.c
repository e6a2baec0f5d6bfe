/* Sets the wall clock of one program off: built by the cluster tests, loaded with LD_PRELOAD.
 *
 * The file that STARLING_TEST_CLOCK names holds two numbers of 64 bits: by how many nanoseconds the clock is off, signed,
 * which may be changed at any time; and how often a wrong time was told, which is counted here. Clocks that measure time,
 * and do not tell it, are left alone, as the kernel leaves them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *off;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("STARLING_TEST_CLOCK");
    int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (file < 0)
        return;
    void *page = mmap(NULL, 2 * sizeof *off, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page != MAP_FAILED)
        off = page;
    close(file);
}

int clock_gettime(clockid_t which, struct timespec *told) {
    if (!real)
        begin();
    int result = real(which, told);
    if (result == 0 && off && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) {
        int64_t nanos = told->tv_nsec + *off % 1000000000;
        told->tv_sec += *off / 1000000000 + (nanos >= 1000000000) - (nanos < 0);
        told->tv_nsec = nanos + (nanos < 0 ? 1000000000 : nanos >= 1000000000 ? -1000000000 : 0);
        if (*off)
            __atomic_fetch_add(&off[1], 1, __ATOMIC_RELAXED);
    }
    return result;
}

int gettimeofday(struct timeval *restrict told, void *restrict zone) {
    struct timespec now;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    told->tv_sec = now.tv_sec;
    told->tv_usec = now.tv_nsec / 1000;
    return result;
}

time_t time(time_t *told) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (told)
        *told = now.tv_sec;
    return now.tv_sec;
}
