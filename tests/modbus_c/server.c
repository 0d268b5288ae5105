/*
 * A Modbus device of libmodbus, for tests and benchmarks: nothing of it is ours but this file.
 *
 *   server tcp PORT [REGISTER=WORD...]                Modbus TCP on 127.0.0.1; port 0: any free one
 *   server rtu DEVICE BAUD UNIT [REGISTER=WORD...]    RTU on a serial line without parity
 *
 * Input and holding registers are the same: a register that is not given (decimal or 0x...) holds
 * its own address. Registers from LAST on do not exist. Prints "READY PORT" or "READY DEVICE" when
 * it can be asked, and ends when its standard input does. Over TCP it answers for every unit, and
 * as many clients at once as select() takes.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <modbus.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LAST = 60000, CLIENTS_WAITING = 128 };

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, modbus_strerror(errno));
    return 1;
}

static int fill(modbus_mapping_t *map, int count, char **given)
{
    for (int at = 0; at < LAST; at++)
        map->tab_registers[at] = map->tab_input_registers[at] = (uint16_t)at;
    for (int i = 0; i < count; i++) {
        char *end;
        long at = strtol(given[i], &end, 0);
        if (*end != '=' || at < 0 || at >= LAST) {
            fprintf(stderr, "not REGISTER=WORD: %s\n", given[i]);
            return 1;
        }
        uint16_t word = (uint16_t)strtol(end + 1, NULL, 0);
        map->tab_registers[at] = map->tab_input_registers[at] = word;
    }
    return 0;
}

/* Answer one request that has come on the socket or line; -1: the other side is gone. */
static int serve(modbus_t *device, modbus_mapping_t *map)
{
    uint8_t query[MODBUS_MAX_ADU_LENGTH];
    int length = modbus_receive(device, query);
    if (length > 0)
        modbus_reply(device, query, length, map);
    return length;
}

static int serve_tcp(modbus_t *device, modbus_mapping_t *map)
{
    int listener = modbus_tcp_listen(device, CLIENTS_WAITING);
    struct sockaddr_in here;
    socklen_t size = sizeof here;
    if (listener < 0 || getsockname(listener, (struct sockaddr *)&here, &size) < 0)
        return fail("listen");
    printf("READY %d\n", ntohs(here.sin_port));
    fflush(stdout);
    fd_set open;
    FD_ZERO(&open);
    FD_SET(STDIN_FILENO, &open);
    FD_SET(listener, &open);
    for (int highest = listener;;) {
        fd_set ready = open;
        if (select(highest + 1, &ready, NULL, NULL, NULL) < 0)
            return fail("select");
        for (int fd = 0; fd <= highest; fd++) {
            if (!FD_ISSET(fd, &ready))
                continue;
            if (fd == STDIN_FILENO)
                return 0;
            if (fd == listener) {
                int client = accept(listener, NULL, NULL), on = 1;
                if (client < 0)
                    continue;
                if (client >= FD_SETSIZE) {
                    close(client);
                    continue;
                }
                setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                FD_SET(client, &open);
                highest = client > highest ? client : highest;
                continue;
            }
            modbus_set_socket(device, fd);
            if (serve(device, map) < 0) {
                close(fd);
                FD_CLR(fd, &open);
            }
        }
    }
}

static int serve_rtu(modbus_t *device, modbus_mapping_t *map, const char *name)
{
    if (modbus_connect(device) < 0)
        return fail(name);
    int line = modbus_get_socket(device);
    printf("READY %s\n", name);
    fflush(stdout);
    for (;;) {
        fd_set ready;
        FD_ZERO(&ready);
        FD_SET(STDIN_FILENO, &ready);
        FD_SET(line, &ready);
        if (select(line + 1, &ready, NULL, NULL, NULL) < 0)
            return fail("select");
        if (FD_ISSET(STDIN_FILENO, &ready))
            return 0;
        if (serve(device, map) < 0 && errno == EIO)
            return fail(name);
    }
}

int main(int count, char **words)
{
    int is_rtu = count > 4 && strcmp(words[1], "rtu") == 0;
    if (!is_rtu && (count < 3 || strcmp(words[1], "tcp") != 0)) {
        fprintf(stderr, "server tcp PORT [R=W...] | server rtu DEVICE BAUD UNIT [R=W...]\n");
        return 2;
    }
    int used = is_rtu ? 5 : 3;
    modbus_t *device = is_rtu ? modbus_new_rtu(words[2], atoi(words[3]), 'N', 8, 1)
                              : modbus_new_tcp("127.0.0.1", atoi(words[2]));
    modbus_mapping_t *map = modbus_mapping_new(0, 0, LAST, LAST);
    if (device == NULL || map == NULL)
        return fail("libmodbus");
    if (fill(map, count - used, words + used))
        return 2;
    if (!is_rtu)
        return serve_tcp(device, map);
    modbus_set_slave(device, atoi(words[4]));
    return serve_rtu(device, map, words[2]);
}
