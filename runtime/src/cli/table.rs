//! Every command and flag, as runc 1.5 names them.

/// A flag of one command, or a global one.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    /// What its value is called in the help; `None` for a switch.
    pub(crate) value: Option<&'static str>,
    pub(crate) about: &'static str,
}

/// A command.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// Its positional arguments as the help shows them.
    pub(crate) arguments: &'static str,
    /// Least and greatest number of positional arguments.
    pub(crate) count: (usize, usize),
    /// Everything after the first positional argument belongs to the container's program.
    pub(crate) passes_rest_on: bool,
    pub(crate) about: &'static str,
    pub(crate) flags: &'static [Flag],
}

const fn switch(long: &'static str, short: Option<char>, about: &'static str) -> Flag {
    Flag {
        long,
        short,
        value: None,
        about,
    }
}

const fn takes(long: &'static str, short: Option<char>, value: &'static str, about: &'static str) -> Flag {
    Flag {
        long,
        short,
        value: Some(value),
        about,
    }
}

const MANY: usize = usize::MAX;

const BUNDLE: Flag = takes(
    "bundle",
    Some('b'),
    "DIR",
    "folder with config.json (default: the current one)",
);
const CONSOLE_SOCKET: Flag = takes(
    "console-socket",
    None,
    "PATH",
    "UNIX socket that receives the master side of the terminal",
);
const PID_FILE: Flag = takes(
    "pid-file",
    None,
    "PATH",
    "write the process id of the first process to this file",
);
const PIDFD_SOCKET: Flag = takes(
    "pidfd-socket",
    None,
    "PATH",
    "UNIX socket that receives a pidfd of the process",
);
const NO_PIVOT: Flag = switch(
    "no-pivot",
    None,
    "enter the root by MS_MOVE and chroot, as a ramdisk needs",
);
const NO_KEYRING: Flag = switch("no-new-keyring", None, "keep the caller's session keyring");
const PRESERVE_FDS: Flag = takes(
    "preserve-fds",
    None,
    "N",
    "pass N more file descriptors (after stdio and $LISTEN_FDS)",
);
const DETACH: Flag = switch("detach", Some('d'), "return as soon as the process runs");
const FORMAT: Flag = takes("format", Some('f'), "table|json", "how to print (default: table)");

const IMAGE_PATH: Flag = takes(
    "image-path",
    None,
    "DIR",
    "where the saved container is (default: ./checkpoint)",
);
const WORK_PATH: Flag = takes(
    "work-path",
    None,
    "DIR",
    "where CRIU's logs go (default: the image path)",
);
const TCP: Flag = switch("tcp-established", None, "take open TCP connections along");
const UNIX_SOCKETS: Flag = switch("ext-unix-sk", None, "allow UNIX sockets with a peer outside");
const SHELL_JOB: Flag = switch("shell-job", None, "allow a session and terminal from outside");
const FILE_LOCKS: Flag = switch("file-locks", None, "take file locks along");
const LAZY_PAGES: Flag = switch("lazy-pages", None, "fetch memory when it is first used");
const CGROUPS_MODE: Flag = takes(
    "manage-cgroups-mode",
    None,
    "MODE",
    "soft, full, strict or ignore (default: soft)",
);
const EMPTY_NS: Flag = takes(
    "empty-ns",
    None,
    "NAMESPACE",
    "leave what is in it alone; network always is (repeatable)",
);
const AUTO_DEDUP: Flag = switch("auto-dedup", None, "keep each memory page once over all images");

/// Flags before the command.
pub(crate) const GLOBAL: &[Flag] = &[
    takes(
        "root",
        None,
        "DIR",
        "where state is kept; should be a tmpfs (default: /run/berth)",
    ),
    takes(
        "log",
        None,
        "FILE",
        "append errors and warnings to this file (default: standard error)",
    ),
    takes(
        "log-format",
        None,
        "text|json",
        "format of the log (default: text)",
    ),
    switch("debug", None, "log each phase and decision too, at level debug"),
    switch(
        "systemd-cgroup",
        None,
        "let systemd make the cgroups; cgroupsPath is then slice:prefix:name",
    ),
    takes(
        "cgroup-manager",
        None,
        "cgroupfs|systemd|disabled",
        "who makes the cgroups (default: cgroupfs)",
    ),
    takes(
        "rootless",
        None,
        "true|false|auto",
        "tolerate cgroups that may not be written (default: auto)",
    ),
    takes("criu", None, "PATH", "the CRIU program (default: criu in $PATH)"),
    switch("help", Some('h'), "show this help"),
    switch("version", Some('v'), "show the version"),
];

/// All commands, in the order of the help.
pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "create",
        arguments: "ID",
        count: (1, 1),
        passes_rest_on: false,
        about: "make a container from a bundle; its program waits for start",
        flags: &[
            BUNDLE,
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            PID_FILE,
            NO_PIVOT,
            NO_KEYRING,
            PRESERVE_FDS,
        ],
    },
    Command {
        name: "start",
        arguments: "ID",
        count: (1, 1),
        passes_rest_on: false,
        about: "let the program of a created container run",
        flags: &[],
    },
    Command {
        name: "run",
        arguments: "ID",
        count: (1, 1),
        passes_rest_on: false,
        about: "create, start, wait and delete",
        flags: &[
            BUNDLE,
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            DETACH,
            switch("keep", None, "keep the container after its program has ended"),
            PID_FILE,
            switch(
                "no-subreaper",
                None,
                "do not reap what the container leaves behind",
            ),
            NO_PIVOT,
            NO_KEYRING,
            PRESERVE_FDS,
        ],
    },
    Command {
        name: "state",
        arguments: "ID",
        count: (1, 1),
        passes_rest_on: false,
        about: "print a container's state as JSON",
        flags: &[],
    },
    Command {
        name: "kill",
        arguments: "ID [SIGNAL]",
        count: (1, 2),
        passes_rest_on: false,
        about: "send a signal (default: TERM) to a container's first process",
        flags: &[switch(
            "all",
            Some('a'),
            "send it to all processes of the container",
        )],
    },
    Command {
        name: "delete",
        arguments: "ID",
        count: (1, 1),
        passes_rest_on: false,
        about: "remove what a container holds",
        flags: &[switch(
            "force",
            Some('f'),
            "kill it first if it runs; a missing container is no error",
        )],
    },
    Command {
        name: "exec",
        arguments: "ID [PROGRAM [ARGUMENT...]]",
        count: (1, MANY),
        passes_rest_on: true,
        about: "run one more process in a container",
        flags: &[
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            takes("cwd", None, "DIR", "working directory in the container"),
            takes(
                "env",
                Some('e'),
                "NAME=VALUE",
                "set an environment variable (repeatable)",
            ),
            switch("tty", Some('t'), "give it a terminal"),
            takes("user", Some('u'), "UID[:GID]", "run as this user"),
            takes("additional-gids", Some('g'), "GID", "one more group (repeatable)"),
            takes(
                "process",
                Some('p'),
                "FILE",
                "read the whole process from this file of the spec's form",
            ),
            DETACH,
            PID_FILE,
            takes("process-label", None, "LABEL", "SELinux label of the process"),
            takes("apparmor", None, "PROFILE", "AppArmor profile of the process"),
            switch("no-new-privs", None, "forbid gaining privileges by execve"),
            takes("cap", Some('c'), "CAPABILITY", "add a capability (repeatable)"),
            PRESERVE_FDS,
            takes(
                "cgroup",
                None,
                "[CONTROLLER:]PATH",
                "run in this cgroup below the container's (repeatable)",
            ),
            switch(
                "ignore-paused",
                None,
                "allow it in a paused container; the process then waits",
            ),
        ],
    },
    Command {
        name: "ps",
        arguments: "ID [PS-OPTION...]",
        count: (1, MANY),
        passes_rest_on: true,
        about: "show a container's processes",
        flags: &[FORMAT],
    },
    Command {
        name: "list",
        arguments: "",
        count: (0, 0),
        passes_rest_on: false,
        about: "show all containers",
        flags: &[FORMAT, switch("quiet", Some('q'), "print ids only")],
    },
    Command {
        name: "pause",
        arguments: "ID",
        count: (1, 1),
        passes_rest_on: false,
        about: "freeze all processes of a container",
        flags: &[],
    },
    Command {
        name: "resume",
        arguments: "ID",
        count: (1, 1),
        passes_rest_on: false,
        about: "thaw a paused container",
        flags: &[],
    },
    Command {
        name: "update",
        arguments: "ID",
        count: (1, 1),
        passes_rest_on: false,
        about: "change a container's limits",
        flags: &[
            takes(
                "resources",
                Some('r'),
                "FILE",
                "read linux.resources from this file, or from - for stdin",
            ),
            takes("blkio-weight", None, "N", "I/O weight, 10 to 1000"),
            takes("cpu-period", None, "US", "CFS period in microseconds"),
            takes("cpu-quota", None, "US", "CFS time in a period in microseconds"),
            takes(
                "cpu-burst",
                None,
                "US",
                "CFS time that may be saved up in microseconds",
            ),
            takes("cpu-share", None, "N", "relative weight of CPU time"),
            takes("cpu-rt-period", None, "US", "realtime period in microseconds"),
            takes(
                "cpu-rt-runtime",
                None,
                "US",
                "realtime time in a period in microseconds",
            ),
            takes("cpu-idle", None, "0|1", "run only when nobody else wants the CPU"),
            takes("cpuset-cpus", None, "LIST", "CPUs to use"),
            takes("cpuset-mems", None, "LIST", "memory nodes to use"),
            takes(
                "kernel-memory",
                None,
                "BYTES",
                "accepted for old callers, without effect",
            ),
            takes(
                "kernel-memory-tcp",
                None,
                "BYTES",
                "accepted for old callers, without effect",
            ),
            takes("memory", None, "BYTES", "memory limit"),
            takes("memory-reservation", None, "BYTES", "soft memory limit"),
            takes(
                "memory-swap",
                None,
                "BYTES",
                "limit of memory and swap together; -1 for none",
            ),
            takes(
                "pids-limit",
                None,
                "N",
                "greatest number of processes; -1 for no limit",
            ),
            takes(
                "l3-cache-schema",
                None,
                "TEXT",
                "L3 cache lines of the container's resctrl schemata",
            ),
            takes(
                "mem-bw-schema",
                None,
                "TEXT",
                "memory bandwidth lines of the container's resctrl schemata",
            ),
        ],
    },
    Command {
        name: "events",
        arguments: "ID",
        count: (1, 1),
        passes_rest_on: false,
        about: "print a container's statistics and out-of-memory events as JSON lines",
        flags: &[
            takes(
                "interval",
                None,
                "DURATION",
                "time between statistics, such as 500ms, 5s, 1m (default: 5s)",
            ),
            switch("stats", None, "print statistics once"),
        ],
    },
    Command {
        name: "spec",
        arguments: "",
        count: (0, 0),
        passes_rest_on: false,
        about: "write a config.json to start from",
        flags: &[BUNDLE, switch("rootless", None, "one for a user who is not root")],
    },
    Command {
        name: "features",
        arguments: "",
        count: (0, 0),
        passes_rest_on: false,
        about: "print what this runtime supports as JSON",
        flags: &[],
    },
    Command {
        name: "checkpoint",
        arguments: "ID",
        count: (1, 1),
        passes_rest_on: false,
        about: "save a running container to files, and end it",
        flags: &[
            IMAGE_PATH,
            WORK_PATH,
            takes(
                "parent-path",
                None,
                "DIR",
                "an earlier pre-dump, relative to the image path",
            ),
            switch("leave-running", None, "let the container run on"),
            TCP,
            UNIX_SOCKETS,
            SHELL_JOB,
            LAZY_PAGES,
            takes(
                "status-fd",
                None,
                "N",
                "write a zero byte to this descriptor when lazy pages can be fetched",
            ),
            takes(
                "page-server",
                None,
                "ADDRESS:PORT",
                "send memory to a page server",
            ),
            FILE_LOCKS,
            switch("pre-dump", None, "save memory only; the container runs on"),
            CGROUPS_MODE,
            EMPTY_NS,
            AUTO_DEDUP,
        ],
    },
    Command {
        name: "restore",
        arguments: "ID",
        count: (1, 1),
        passes_rest_on: false,
        about: "bring a saved container back, and wait for its end",
        flags: &[
            BUNDLE,
            CONSOLE_SOCKET,
            IMAGE_PATH,
            WORK_PATH,
            TCP,
            UNIX_SOCKETS,
            SHELL_JOB,
            FILE_LOCKS,
            CGROUPS_MODE,
            DETACH,
            PID_FILE,
            switch(
                "no-subreaper",
                None,
                "do not reap what the container leaves behind",
            ),
            switch(
                "no-pivot",
                None,
                "accepted for old callers: CRIU enters the root in its own way",
            ),
            EMPTY_NS,
            AUTO_DEDUP,
            LAZY_PAGES,
            takes(
                "lsm-profile",
                None,
                "TYPE:NAME",
                "AppArmor profile or SELinux label to restore with",
            ),
            takes(
                "lsm-mount-context",
                None,
                "LABEL",
                "SELinux label of restored mounts",
            ),
            PRESERVE_FDS,
        ],
    },
    Command {
        name: "completion",
        arguments: "bash|zsh|fish",
        count: (1, 1),
        passes_rest_on: false,
        about: "print a completion script for a shell",
        flags: &[],
    },
    Command {
        name: "man",
        arguments: "[COMMAND]",
        count: (0, 1),
        passes_rest_on: false,
        about: "print the manual page, in roff",
        flags: &[],
    },
];

/// The command called `name`.
pub(crate) fn command(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_or_command_is_there_twice() {
        let distinct = |names: Vec<&str>| {
            let count = names.len();
            let set: std::collections::HashSet<_> = names.into_iter().collect();
            assert_eq!(set.len(), count);
        };
        distinct(COMMANDS.iter().map(|command| command.name).collect());
        for command in COMMANDS {
            distinct(command.flags.iter().map(|flag| flag.long).collect());
        }
    }
}
