/* A load generator for small HTTP answers: many callers (a process and a user each), many distinct heads.
 *
 * Closed loop (rate 0): each connection sends its next request when it has its answer. Open loop: requests are
 * due at fixed times whatever the answers do, and latency counts from when a request was due, so that a server
 * that stalls is charged for all that it kept waiting (no coordinated omission).
 *
 * load PORT CALLERS CONNECTIONS SECONDS WARMUP RATE MODE UID HEADS
 *   CALLERS processes with CONNECTIONS each; as users UID, UID+1, … where UID is not 0; RATE of all together.
 *   MODE: keep (one connection, many requests), once (a connection for each request), pair (a PUT on the
 *   connection before each GET, whose %TOKEN% is the token). HEADS: a file of heads, each followed by a NUL byte;
 *   in mode pair the first is the PUT; %NUMBER% in a head is another number each time. Each caller has 20 heads,
 *   nobody else's where there are enough. Prints "go" when the warm-up is over, then one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BUCKETS = 64 * 32, BUFFER = 65536, MAX_HEADS = 4096 };
enum mode { KEEP, ONCE, PAIR };

struct shared {
    atomic_int ready, answered, phase; /* phase: 0 warm-up, 1 measure, 2 stop */
    atomic_ulong requests, failed, broken, dropped;
    atomic_ulong histogram[BUCKETS];
};

struct connection {
    int fd, busy, pairing, length, sent, size;
    uint64_t due;
    char *buffer, *out;
};

static struct shared *shared;
static struct sockaddr_in server;
static char *heads[MAX_HEADS];
static int head_count, next_head, first_head, span, epoll, done;
static enum mode mode;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* 32 buckets for each power of two: 3 % wide. */
static int bucket(uint64_t nanoseconds) {
    if (nanoseconds < 64) return nanoseconds / 2;
    int power = 63 - __builtin_clzll(nanoseconds);
    return (power - 5) * 32 + ((nanoseconds >> (power - 5)) & 31);
}

static double value_of(int bucket) {
    if (bucket < 32) return bucket * 2;
    return (double)((uint64_t)(32 + bucket % 32) << (bucket / 32)) * 1.015;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void open_connection(struct connection *c) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket");
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) die("connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) < 0) die("epoll_ctl");
    c->length = 0;
}

static void send_more(struct connection *c) {
    while (c->sent < c->size) {
        ssize_t n = send(c->fd, c->out + c->sent, c->size - c->sent, MSG_NOSIGNAL);
        if (n < 0) return; /* it goes on when the socket is writable; a broken one is seen on reading */
        c->sent += n;
    }
}

static void say(struct connection *c, const char *head, const char *token) {
    static unsigned long asked;
    const char *mark = strstr(head, "%TOKEN%"), *number = strstr(head, "%NUMBER%");
    if (number)
        c->size = snprintf(c->out, BUFFER, "%.*s%d-%lu%s", (int)(number - head), head, getpid(), asked++, number + 8);
    else if (mark && token)
        c->size = snprintf(c->out, BUFFER, "%.*s%s%s", (int)(mark - head), head, token, mark + 7);
    else
        c->size = snprintf(c->out, BUFFER, "%s", head);
    c->sent = c->length = 0;
    send_more(c);
}

/* Each caller has so many heads of its own, in turn; which, is another matter for the next one. */
static const char *next(void) {
    int skip = mode == PAIR; /* the PUT */
    const char *head = heads[skip + (first_head + next_head) % (head_count - skip)];
    next_head = (next_head + 1) % span;
    return head;
}

static void begin(struct connection *c, uint64_t due) {
    if (c->fd < 0) open_connection(c);
    c->busy = 1;
    c->due = due;
    c->pairing = mode == PAIR;
    if (c->pairing) {
        say(c, heads[0], NULL);
        return;
    }
    say(c, next(), NULL);
}

/* The length of the whole answer in the buffer, 0 while it is not whole. */
static int whole(struct connection *c, char **body) {
    c->buffer[c->length] = 0;
    char *end = strstr(c->buffer, "\r\n\r\n");
    if (!end) return 0;
    *body = end + 4;
    char *length = strcasestr(c->buffer, "\r\ncontent-length:");
    if (length && length < end) {
        int total = end + 4 - c->buffer + atoi(length + 17);
        return c->length >= total ? total : 0;
    }
    return strstr(end, "\r\n0\r\n\r\n") ? c->length : 0; /* chunked */
}

static void close_connection(struct connection *c) {
    close(c->fd);
    c->fd = -1;
}

/* The answer is there. Whether the connection is free for another request. */
static int finish(struct connection *c, char *body, int total) {
    int status = atoi(c->buffer + 9);
    if (c->pairing && status == 200) {
        char token[1024];
        snprintf(token, sizeof token, "%.*s", (int)(c->buffer + total - body), body);
        c->pairing = 0;
        say(c, next(), token);
        return 0;
    }
    if (status == 200 && ++done == 3 * span) atomic_fetch_add(&shared->answered, 1);
    if (atomic_load_explicit(&shared->phase, memory_order_relaxed) == 1) {
        atomic_fetch_add(&shared->requests, 1);
        if (status != 200) atomic_fetch_add(&shared->failed, 1);
        atomic_fetch_add(&shared->histogram[bucket(now() - c->due)], 1);
    }
    c->busy = 0;
    char *closing = strcasestr(c->buffer, "\r\nconnection: close");
    if (mode == ONCE || (closing && closing < body)) close_connection(c);
    return 1;
}

/* Whether it became free. */
static int serve(struct connection *c) {
    send_more(c);
    for (;;) {
        ssize_t n = recv(c->fd, c->buffer + c->length, BUFFER - 1 - c->length, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
        if (n <= 0) {
            int was_busy = c->busy;
            if (was_busy) atomic_fetch_add(&shared->broken, 1);
            c->busy = 0;
            close_connection(c);
            return was_busy;
        }
        c->length += n;
        char *body;
        int total = c->busy ? whole(c, &body) : 0;
        if (total && finish(c, body, total)) return 1;
    }
}

static void caller(int connections, double rate) {
    struct connection *all = calloc(connections, sizeof *all);
    struct connection **free_ones = calloc(connections, sizeof *free_ones);
    struct epoll_event events[256];
    int free_count = 0, phase;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < connections; i++) {
        all[i].buffer = malloc(BUFFER);
        all[i].out = malloc(BUFFER);
        all[i].fd = -1;
        if (mode != ONCE) open_connection(&all[i]);
        free_ones[free_count++] = &all[i];
    }
    atomic_fetch_add(&shared->ready, 1);
    while (atomic_load(&shared->ready) >= 0) usleep(1000);
    uint64_t interval = rate > 0 ? 1e9 / rate : 0, due = now() + (interval ? rand() % interval : 0);
    while ((phase = atomic_load_explicit(&shared->phase, memory_order_relaxed)) < 2) {
        uint64_t at = now();
        while (free_count && (!interval || due <= at)) {
            begin(free_ones[--free_count], interval ? due : at);
            due += interval;
        }
        struct timespec wait = {0, 100000000};
        if (interval && free_count) wait.tv_nsec = due > at ? (due - at < 100000000 ? due - at : 100000000) : 0;
        int count = epoll_pwait2(epoll, events, 256, &wait, NULL);
        for (int i = 0; i < count; i++)
            if (((struct connection *)events[i].data.ptr)->fd >= 0 && serve(events[i].data.ptr))
                free_ones[free_count++] = events[i].data.ptr;
    }
    if (interval && now() > due) atomic_fetch_add(&shared->dropped, (now() - due) / interval);
    exit(0);
}

static void read_heads(const char *path) {
    int fd = open(path, O_RDONLY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) die(path);
    char *text = malloc(st.st_size + 1);
    if (read(fd, text, st.st_size) != st.st_size) die(path);
    for (char *at = text; at < text + st.st_size && head_count < MAX_HEADS; at += strlen(at) + 1) heads[head_count++] = at;
    close(fd);
}

static double percentile(double part) {
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) total += shared->histogram[i];
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += shared->histogram[i]) >= part * total && total) return value_of(i) / 1000;
    return 0;
}

int main(int count, char **words) {
    if (count != 10) return fprintf(stderr, "see the source for usage\n"), 2;
    int callers = atoi(words[2]), connections = atoi(words[3]), uid = atoi(words[8]);
    double seconds = atof(words[4]), warmup = atof(words[5]), rate = atof(words[6]);
    mode = !strcmp(words[7], "once") ? ONCE : !strcmp(words[7], "pair") ? PAIR : KEEP;
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    read_heads(words[9]);
    span = head_count - (mode == PAIR);
    if (callers > 1 && span > 20) span = 20;
    signal(SIGPIPE, SIG_IGN);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < callers; i++) {
        pid_t pid = fork();
        if (pid < 0) die("fork");
        if (pid == 0) {
            srand(i + 1);
            first_head = head_count >= callers * span ? i * span : i * 7;
            if (uid && (setgid(uid + i) < 0 || setuid(uid + i) < 0)) die("setuid");
            caller(connections, rate / callers);
        }
    }
    while (atomic_load(&shared->ready) < callers) {
        if (waitpid(-1, NULL, WNOHANG) > 0) return fprintf(stderr, "a caller ended\n"), 1;
        usleep(1000);
    }
    atomic_store(&shared->ready, -1000000);
    /* Until each caller and each of its heads are known to the server, however long it looks for so many. */
    for (int i = 0; atomic_load(&shared->answered) < callers && i < 15000; i++) usleep(1000);
    usleep(warmup * 1e6);
    atomic_store(&shared->phase, 1);
    printf("go\n");
    fflush(stdout);
    uint64_t began = now();
    usleep(seconds * 1e6);
    atomic_store(&shared->phase, 2);
    double took = (now() - began) / 1e9;
    printf("{\"seconds\": %.6f, \"requests\": %lu, \"failed\": %lu, \"broken\": %lu, \"dropped\": %lu, ", took,
           shared->requests, shared->failed, shared->broken, shared->dropped);
    printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f}\n", percentile(.5), percentile(.99), percentile(.999));
    fflush(stdout);
    while (wait(NULL) > 0) {
    }
    return 0;
}
