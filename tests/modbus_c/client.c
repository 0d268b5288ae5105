/*
 * How fast libmodbus itself reads, for benchmarks.
 *
 *   client PORT CONNECTIONS REQUESTS REGISTERS
 *
 * So many input registers from 0 on, from 127.0.0.1, so many requests a connection, each connection
 * in a thread of its own. Every register is held against its address. Prints the seconds it took
 * and the seconds of processor time; exit code 1 when something was wrong.
 */
#include <modbus.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

enum { CONNECTIONS_MAX = 256 };

static int port, requests, registers;
static pthread_barrier_t connected;

static void *read_all(void *unused)
{
    (void)unused;
    uint16_t words[MODBUS_MAX_READ_REGISTERS];
    long wrong = 0;
    modbus_t *device = modbus_new_tcp("127.0.0.1", port);
    if (device == NULL || modbus_set_slave(device, 1) < 0 || modbus_connect(device) < 0)
        wrong = 1;
    pthread_barrier_wait(&connected);
    for (int i = 0; i < requests && !wrong; i++) {
        if (modbus_read_input_registers(device, 0, registers, words) != registers)
            wrong = 1;
        for (int at = 0; at < registers && !wrong; at++)
            wrong = words[at] != at;
    }
    modbus_close(device);
    modbus_free(device);
    return (void *)wrong;
}

int main(int count, char **words)
{
    pthread_t threads[CONNECTIONS_MAX];
    int connections = count == 5 ? atoi(words[2]) : 0;
    if (connections < 1 || connections > CONNECTIONS_MAX) {
        fprintf(stderr, "client PORT CONNECTIONS REQUESTS REGISTERS\n");
        return 2;
    }
    port = atoi(words[1]);
    requests = atoi(words[3]);
    registers = atoi(words[4]);
    pthread_barrier_init(&connected, NULL, (unsigned)connections + 1);
    for (int i = 0; i < connections; i++)
        if (pthread_create(&threads[i], NULL, read_all, NULL))
            return 1;
    pthread_barrier_wait(&connected);
    struct timespec from, until;
    clock_gettime(CLOCK_MONOTONIC, &from);
    long wrong = 0;
    for (int i = 0; i < connections; i++) {
        void *found;
        pthread_join(threads[i], &found);
        wrong += (long)found;
    }
    clock_gettime(CLOCK_MONOTONIC, &until);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("%.6f %.6f\n",
           (double)(until.tv_sec - from.tv_sec) + 1e-9 * (double)(until.tv_nsec - from.tv_nsec),
           (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
               1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec));
    return wrong != 0;
}
