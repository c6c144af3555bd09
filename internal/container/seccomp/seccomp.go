// SPDX-License-Identifier: Apache-2.0

// Package seccomp has the profile RuntimeDefault, the system calls that
// container runtimes agree to allow, and reads localhost profiles. Package
// container/spec calls it. It is pure.
package seccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// always are allowed in every container.
const always = `
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64
close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat
faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs
fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32
getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid
getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill
landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen
listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise
map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap
mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2
pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease
process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink
readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename
renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area
set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid
setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid
setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync
sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat
utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev`

// byArchitecture are allowed besides, where the machine has them.
var byArchitecture = map[string]string{
	"amd64":   "arch_prctl modify_ldt",
	"386":     "modify_ldt",
	"arm":     "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
	"arm64":   "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
	"ppc64le": "sync_file_range2 swapcontext",
	"s390x":   "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
	"riscv64": "riscv_flush_icache",
}

// byCapability are allowed to containers that have a capability.
var byCapability = map[string]string{
	"CAP_DAC_READ_SEARCH": "open_by_handle_at",
	"CAP_SYS_ADMIN": `bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr
		move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare`,
	"CAP_SYS_BOOT":       "reboot",
	"CAP_SYS_CHROOT":     "chroot",
	"CAP_SYS_MODULE":     "delete_module init_module finit_module",
	"CAP_SYS_PACCT":      "acct",
	"CAP_SYS_PTRACE":     "kcmp pidfd_getfd process_madvise",
	"CAP_SYS_RAWIO":      "iopl ioperm",
	"CAP_SYS_TIME":       "settimeofday stime clock_settime clock_settime64",
	"CAP_SYS_TTY_CONFIG": "vhangup",
	"CAP_SYS_NICE":       "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
	"CAP_SYSLOG":         "syslog",
	"CAP_BPF":            "bpf",
	"CAP_PERFMON":        "perf_event_open",
}

// personalities are the execution domains that may be chosen: Linux, the one
// with 32-bit addresses, either with a UNAME26 kernel name, and asking.
var personalities = []uint64{0x0, 0x8, 0x20000, 0x20008, 0xffffffff}

// newNamespaces are the clone flags that need CAP_SYS_ADMIN.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID |
	unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

// architectures are the machine's and the ones it also runs.
var architectures = map[string][]specs.Arch{
	"amd64":   {specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
	"arm64":   {specs.ArchARM, specs.ArchAARCH64},
	"s390x":   {specs.ArchS390, specs.ArchS390X},
	"riscv64": {specs.ArchRISCV64},
	"ppc64le": {specs.ArchPPC64LE},
}

// Default is RuntimeDefault for a container with the given capabilities.
func Default(capabilities []string) *specs.LinuxSeccomp {
	names := strings.Fields(always + " " + byArchitecture[runtime.GOARCH])
	for capability, more := range byCapability {
		if slices.Contains(capabilities, capability) {
			names = append(names, strings.Fields(more)...)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	eperm, enosys := uint(unix.EPERM), uint(unix.ENOSYS)
	profile := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: &eperm,
		Architectures: architectures[runtime.GOARCH],
		Syscalls: []specs.LinuxSyscall{
			{Names: names, Action: specs.ActAllow},
			// Virtual machine sockets reach past network namespaces.
			{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: unix.AF_VSOCK, Op: specs.OpNotEqual}}},
		},
	}
	for _, p := range personalities {
		profile.Syscalls = append(profile.Syscalls, specs.LinuxSyscall{
			Names: []string{"personality"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: p, Op: specs.OpEqualTo}},
		})
	}
	if !slices.Contains(capabilities, "CAP_SYS_ADMIN") {
		var flags uint
		if runtime.GOARCH == "s390x" {
			flags = 1 // the order of clone's parameters is another
		}
		profile.Syscalls = append(profile.Syscalls,
			specs.LinuxSyscall{Names: []string{"clone"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: flags, Value: newNamespaces, Op: specs.OpMaskedEqual}}},
			// Its flags are in memory, where no filter sees them: C libraries fall back to clone.
			specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &enosys})
	}
	return profile
}

// dockerProfile is the form in which profiles are passed around: that of the
// OCI with conditions on architecture and capabilities.
type dockerProfile struct {
	specs.LinuxSeccomp
	ArchMap []struct {
		Architecture     specs.Arch
		SubArchitectures []specs.Arch
	}
	Syscalls []struct {
		specs.LinuxSyscall
		Name               string
		Includes, Excludes condition
	}
}

type condition struct{ Caps, Arches []string }

// Load reads a localhost profile for a container with the given capabilities.
func Load(raw []byte, capabilities []string) (*specs.LinuxSeccomp, error) {
	var in dockerProfile
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, fmt.Errorf("decoding the profile: %w", err)
	}
	if in.DefaultAction == "" {
		return nil, errors.New("the profile has no default action")
	}
	out := in.LinuxSeccomp
	for _, m := range in.ArchMap {
		if slices.Contains(architectures[runtime.GOARCH], m.Architecture) {
			out.Architectures = append(append(out.Architectures, m.Architecture), m.SubArchitectures...)
		}
	}
	has := func(list []string, item string) bool { return slices.Contains(list, item) }
	for _, call := range in.Syscalls {
		if len(call.Includes.Arches) > 0 && !has(call.Includes.Arches, runtime.GOARCH) || has(call.Excludes.Arches, runtime.GOARCH) {
			continue
		}
		if slices.ContainsFunc(call.Includes.Caps, func(c string) bool { return !has(capabilities, c) }) ||
			slices.ContainsFunc(call.Excludes.Caps, func(c string) bool { return has(capabilities, c) }) {
			continue
		}
		rule := call.LinuxSyscall
		if call.Name != "" {
			rule.Names = append(rule.Names, call.Name)
		}
		out.Syscalls = append(out.Syscalls, rule)
	}
	return &out, nil
}
