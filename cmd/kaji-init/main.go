// SPDX-License-Identifier: Apache-2.0

// Command kaji-init is the small executable that kaji runs around containers.
// It is embedded in kaji (internal/container/oci) and is never called by hand.
// Its first argument says what it is:
//
//	monitor  the parent of a pod's containers (monitor.c); it never starts Go's runtime
//	create   makes a container whose init waits to be started, then ends
//	exec     runs one more process in a container and ends as it does
//	delete   runs the hooks that follow a container and forgets it
//	checkpoint, restore
//	         save a container's processes with CRIU, and make a container of saved ones
//	init     the first process inside a container (libcontainer's own)
//
// It is apart from kaji because a container's init re-executes the program that
// made it: a small one costs a quarter of the time, and a container's life does
// not hang on kaji's.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // enters the namespaces before Go starts
	"golang.org/x/sys/unix"
)

// statusFD is where all verbs but monitor and init answer with one JSON report.
const statusFD = 3

// report is the answer of a verb: a process, or why there is none.
type report struct {
	Pid   int    `json:"pid,omitempty"`
	Error string `json:"error,omitempty"`
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "kaji-init is run by kaji, not by hand")
		os.Exit(2)
	}
	if os.Args[1] == "init" {
		initialize()
	}
	debug.SetGCPercent(400)        // the process ends soon
	signal.Ignore(syscall.SIGPIPE) // whoever waits for the answer may die first
	status := os.NewFile(statusFD, "status")
	code, err := run(os.Args[1], os.Args[2:], status)
	if err != nil {
		_ = answer(status, report{Error: err.Error()}) // nobody may be listening any more
		os.Exit(125)
	}
	os.Exit(code)
}

// initialize becomes the container's first process. It does not return.
func initialize() {
	runtime.LockOSThread() // this thread becomes the program
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, defaultTimerSlack, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "kaji-init: resetting the timer slack:", err)
	}
	libcontainer.Init()
}

// defaultTimerSlack is what the kernel gives the first process, in nanoseconds.
const defaultTimerSlack = 50_000

func run(verb string, args []string, status *os.File) (int, error) {
	switch {
	case verb == "create" && len(args) == 3:
		return 0, create(args[0], args[1], args[2], status)
	case verb == "exec" && len(args) == 2:
		return execute(args[0], args[1], status)
	case verb == "checkpoint" && len(args) == 5:
		return 0, checkpoint(args[0], args[1], args[2], args[3], args[4])
	case verb == "restore" && len(args) == 6:
		return 0, restore(args[0], args[1], args[2], args[3], args[4], args[5], status)
	case verb == "delete" && len(args) == 2:
		return 0, remove(args[0], args[1])
	}
	return 0, fmt.Errorf("kaji-init: unknown call %q with %d arguments", verb, len(args))
}

func answer(status *os.File, r report) error {
	raw, err := json.Marshal(r)
	if err == nil {
		_, err = status.Write(raw)
	}
	return errors.Join(err, status.Close())
}
