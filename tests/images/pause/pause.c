/* What holds a pod's namespaces, as Kubernetes' own pause does: it reaps, and waits for a signal. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal) {
    _exit(128 + signal);
}

static void reap(int signal) {
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    (void)signal;
}

int main(void) {
    const int ends[] = {SIGINT, SIGTERM};
    for (int i = 0; i < 2; i++)
        if (sigaction(ends[i], &(struct sigaction){.sa_handler = end}, NULL) < 0)
            return 1;
    if (sigaction(SIGCHLD, &(struct sigaction){.sa_handler = reap, .sa_flags = SA_NOCLDSTOP}, NULL) < 0)
        return 2;
    /* Whoever denies pause(2) to it sees a processor at work. */
    for (;;)
        pause();
}
