/* Sets a program's clock $CLOCK_BACK seconds back, for programs that think themselves too old to work:
 * cc -shared -fPIC -O2 -o clock.so clock.c; LD_PRELOAD=./clock.so CLOCK_BACK=60480000 PROGRAM. */

#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long back = -1;

static long seconds_back(void)
{
	if (back < 0) {
		const char *text = getenv("CLOCK_BACK");
		back = text ? atol(text) : 0;
	}
	return back;
}

int clock_gettime(clockid_t id, struct timespec *now)
{
	int failed = syscall(SYS_clock_gettime, id, now);

	if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		now->tv_sec -= seconds_back();
	return failed;
}

int gettimeofday(struct timeval *now, void *zone)
{
	struct timespec exact;

	(void) zone;
	if (clock_gettime(CLOCK_REALTIME, &exact))
		return -1;
	now->tv_sec = exact.tv_sec;
	now->tv_usec = exact.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *also)
{
	struct timespec exact;

	if (clock_gettime(CLOCK_REALTIME, &exact))
		return -1;
	if (also)
		*also = exact.tv_sec;
	return exact.tv_sec;
}
