/* The kernel's part of `run /bin/true` with the default config, and nothing else: no configuration is read, no
 * error is explained. What a runtime takes beyond this is its own. With --phases it prints a line for the end of
 * each phase, `side.phase microseconds`, with the names that the runtime writes into $BERTH_PHASES.
 *
 *   floor ROOTFS NAME [--phases]      as root; NAME names the cgroups and the state folder
 *
 * hack/bench and hack/phases build it; it is linked statically, as the runtime is. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MUST(call) do { if ((call) < 0) { fprintf(stderr, "floor: %s: %s\n", #call, strerror(errno)); _exit(1); } } while (0)

/* Shared with the child. Each side is the only one that writes while it does. */
static struct phases { int counts[2]; struct { const char *name; struct timespec at; } list[2][16]; } *phases;

static void phase_of(int side, const char *name) {
    int index = phases->counts[side]++;
    phases->list[side][index].name = name;
    clock_gettime(CLOCK_MONOTONIC, &phases->list[side][index].at);
}

static void phase(const char *name) { phase_of(0, name); }
static void child_phase(const char *name) { phase_of(1, name); }

static char groups[16][256];
static int tasks[16], group_count;

static void put(const char *folder, const char *file, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0) { if (write(fd, text, strlen(text)) < 0) {} close(fd); }
}

static void make_groups(const char *name) {
    static const char *all[] = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "net_cls", "blkio",
                                "perf_event", "net_prio", "hugetlb", "pids", "rdma", "misc"};
    static const char *rules[] = {"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:8 rwm", "c 1:7 rwm", "c 5:0 rwm", "c 1:5 rwm",
                                  "c 1:9 rwm", "c 5:1 rwm", "c 136:* rwm", "c 5:2 rwm"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct stat link;
        char path[256];
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s", all[i]);
        if (lstat(path, &link) < 0 || S_ISLNK(link.st_mode)) continue;
        snprintf(groups[group_count], 256, "/sys/fs/cgroup/%s/%s", all[i], name);
        if (mkdir(groups[group_count], 0755) < 0) continue;
        char file[512];
        snprintf(file, sizeof file, "%s/tasks", groups[group_count]);
        tasks[group_count] = open(file, O_WRONLY | O_CLOEXEC);
        if (!strcmp(all[i], "cpuset")) {
            static const char *copied[] = {"cpuset.cpus", "cpuset.mems"};
            for (int k = 0; k < 2; k++) {
                char text[256];
                snprintf(file, sizeof file, "%s/%s", path, copied[k]);
                int fd = open(file, O_RDONLY | O_CLOEXEC);
                ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
                text[n > 0 ? n : 0] = 0;
                close(fd);
                put(groups[group_count], copied[k], text);
            }
        }
        if (!strcmp(all[i], "devices")) {
            put(groups[group_count], "devices.deny", "a");
            for (size_t r = 0; r < sizeof rules / sizeof *rules; r++) put(groups[group_count], "devices.allow", rules[r]);
        }
        group_count++;
    }
}

static void container(const char *rootfs) {
    static const char *nodes[] = {"null", "zero", "full", "random", "urandom", "tty"};
    static const int numbers[][2] = {{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}};
    static const char *files[] = {"proc/kcore", "proc/keys", "proc/timer_list"};
    static const char *folders[] = {"proc/acpi", "proc/scsi", "sys/firmware"};
    static const char *readonly[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
    char path[256];
    child_phase("init.cloned");
    for (int i = 0; i < group_count; i++) if (tasks[i] >= 0 && write(tasks[i], "0", 1) < 0) {}
    child_phase("init.groups");
    MUST(unshare(CLONE_NEWCGROUP));
    MUST(setsid());
    MUST(sethostname("runc", 4));
    child_phase("init.namespaces");
    MUST(mount(0, "/", 0, MS_REC | MS_SLAVE, 0));
    MUST(mount(rootfs, rootfs, 0, MS_BIND | MS_REC, 0));
    MUST(chdir(rootfs));
    MUST(mount("proc", "proc", "proc", 0, 0));
    MUST(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
    mkdir("dev/pts", 0755), mkdir("dev/shm", 0755), mkdir("dev/mqueue", 0755);
    MUST(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"));
    MUST(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777,size=65536k"));
    MUST(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, 0));
    MUST(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, 0));
    MUST(mount("tmpfs", "sys/fs/cgroup", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=755"));
    for (int i = 0; i < group_count; i++) {
        char *name = strrchr(groups[i], '/');
        *name = 0;
        snprintf(path, sizeof path, "sys/fs/cgroup%s", strrchr(groups[i], '/'));
        mkdir(path, 0755);
        *name = '/';
        MUST(mount(groups[i], path, 0, MS_BIND, 0));
    }
    for (int i = 0; i < 6; i++) {
        snprintf(path, sizeof path, "dev/%s", nodes[i]);
        MUST(mknod(path, S_IFCHR | 0666, (dev_t)(numbers[i][0] << 8 | numbers[i][1])));
    }
    MUST(symlink("/proc/self/fd", "dev/fd"));
    MUST(symlink("pts/ptmx", "dev/ptmx"));
    child_phase("init.mounts");
    MUST(syscall(SYS_pivot_root, ".", "."));
    MUST(umount2(".", MNT_DETACH));
    MUST(chdir("/"));
    child_phase("init.pivot");
    for (int i = 0; i < 3; i++) if (mount("/dev/null", files[i], 0, MS_BIND, 0) < 0) {}
    for (int i = 0; i < 3; i++) if (mount("tmpfs", folders[i], "tmpfs", MS_RDONLY, 0) < 0) {}
    for (int i = 0; i < 5; i++)
        if (mount(readonly[i], readonly[i], 0, MS_BIND | MS_REC, 0) == 0) MUST(mount(0, readonly[i], 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0));
    child_phase("init.masks");
    struct rlimit files_limit = {1024, 1024};
    MUST(setrlimit(RLIMIT_NOFILE, &files_limit));
    for (int cap = 0; cap < 41; cap++) if (cap != 5 && cap != 10 && cap != 29) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    child_phase("init.identity");
    child_phase("init.exec");
    execl("/bin/true", "/bin/true", (char *)0);
    _exit(127);
}

int main(int count, char **words) {
    if (count < 3) return 2;
    char state[256], file[512];
    phases = mmap(0, sizeof *phases, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (phases == MAP_FAILED) return 1;
    phase("runtime.begin");
    mkdir("/run/berth-floor", 0700);
    snprintf(state, sizeof state, "/run/berth-floor/%s", words[2]);
    MUST(mkdir(state, 0700));
    snprintf(file, sizeof file, "%s/state.json", state);
    phase("runtime.state");
    make_groups(words[2]);
    phase("runtime.groups");
    struct clone_args args = {.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET, .exit_signal = SIGCHLD};
    int pid = (int)syscall(SYS_clone3, &args, sizeof args);
    MUST(pid);
    if (!pid) container(words[1]);
    phase("runtime.clone");
    int fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600), status;
    if (write(fd, file, sizeof file) < 0) {}
    close(fd);
    phase("runtime.record");
    MUST(waitpid(pid, &status, 0));
    phase("runtime.ended");
    for (int i = 0; i < group_count; i++) rmdir(groups[i]);
    phase("runtime.groups-gone");
    unlink(file), rmdir(state), rmdir("/run/berth-floor");
    phase("runtime.state-gone");
    for (int side = 0; side < 2 && count > 3; side++)
        for (int i = 0; i < phases->counts[side]; i++)
            printf("%s %ld\n", phases->list[side][i].name,
                   phases->list[side][i].at.tv_sec * 1000000 + phases->list[side][i].at.tv_nsec / 1000);
    return WEXITSTATUS(status);
}
