// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	_ "github.com/opencontainers/cgroups/devices" // device rules, which every container has
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// create makes container id below root from bundle/config.json and leaves its
// init waiting on the fifo in the state directory. The container's standard
// streams are this process's own; with a terminal, descriptor 4 is the socket
// that receives its master side.
func create(root, id, bundle string, status *os.File) error {
	container, process, err := prepare(root, id, bundle)
	if err != nil {
		return err
	}
	process.Init = true
	if err := container.Start(process); err != nil {
		return errors.Join(err, container.Destroy())
	}
	return tell(container, process, status)
}

// prepare makes a container without a process, and the process that shall be its
// first.
func prepare(root, id, bundle string) (*libcontainer.Container, *libcontainer.Process, error) {
	spec := new(specs.Spec)
	if err := readJSON(filepath.Join(bundle, "config.json"), spec); err != nil {
		return nil, nil, err
	}
	// libcontainer takes a relative root file system from the working directory.
	if err := os.Chdir(bundle); err != nil {
		return nil, nil, err
	}
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:       id,
		UseSystemdCgroup: strings.Count(spec.Linux.CgroupsPath, ":") == 2, // "slice:prefix:name"
		Spec:             spec,
	})
	if err != nil {
		return nil, nil, err
	}
	container, err := libcontainer.Create(root, id, config)
	if err != nil {
		return nil, nil, err
	}
	process, err := newProcess(spec.Process, 4)
	if err != nil {
		return nil, nil, errors.Join(err, container.Destroy())
	}
	return container, process, nil
}

// tell answers with the first process of a container.
func tell(container *libcontainer.Container, process *libcontainer.Process, status *os.File) error {
	pid, err := process.Pid()
	if err == nil {
		err = answer(status, report{Pid: pid})
	}
	if err != nil { // nobody would ever start it
		_ = process.Signal(unix.SIGKILL)
		_, _ = process.Wait()
		return errors.Join(err, container.Destroy())
	}
	return nil
}

// execute runs the process described as JSON on descriptor 4 in a container and
// returns its exit code. With a terminal, descriptor 5 receives the master side.
func execute(root, id string, status *os.File) (int, error) {
	spec := new(specs.Process)
	in := os.NewFile(4, "process")
	if err := json.NewDecoder(in).Decode(spec); err != nil {
		return 0, fmt.Errorf("reading the process: %w", err)
	}
	if err := in.Close(); err != nil {
		return 0, err
	}
	container, err := libcontainer.Load(root, id)
	if err != nil {
		return 0, err
	}
	process, err := newProcess(spec, 5)
	if err != nil {
		return 0, err
	}
	if err := container.Run(process); err != nil {
		return 0, err
	}
	pid, err := process.Pid()
	if err != nil {
		return 0, err
	}
	if err := answer(status, report{Pid: pid}); err != nil {
		_ = process.Signal(unix.SIGKILL)
	}
	// What this process still holds of the streams would keep readers waiting.
	for fd := range 3 {
		if err := unix.Close(fd); err != nil {
			return 0, err
		}
	}
	state, err := process.Wait()
	if state == nil {
		return 0, err
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return state.ExitCode(), nil
}

// remove runs the hooks that follow a container and deletes what libcontainer
// keeps of it.
func remove(root, id string) error {
	container, err := libcontainer.Load(root, id)
	if errors.Is(err, libcontainer.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return container.Destroy()
}

func readJSON(path string, into any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// newProcess translates a process; console is the descriptor of the socket for
// its terminal.
func newProcess(p *specs.Process, console int) (*libcontainer.Process, error) {
	if p == nil || len(p.Args) == 0 {
		return nil, errors.New("args must not be empty")
	}
	out := &libcontainer.Process{
		Args: p.Args, Env: p.Env, Cwd: p.Cwd,
		UID: int(p.User.UID), GID: int(p.User.GID),
		Label: p.SelinuxLabel, AppArmorProfile: p.ApparmorProfile,
		NoNewPrivileges: &p.NoNewPrivileges,
		Scheduler:       p.Scheduler, IOPriority: p.IOPriority,
		LogLevel: "2", // errors
	}
	if p.ConsoleSize != nil {
		out.ConsoleWidth, out.ConsoleHeight = uint16(p.ConsoleSize.Width), uint16(p.ConsoleSize.Height)
	}
	if c := p.Capabilities; c != nil {
		out.Capabilities = &configs.Capabilities{
			Bounding: c.Bounding, Effective: c.Effective, Inheritable: c.Inheritable,
			Permitted: c.Permitted, Ambient: c.Ambient,
		}
	}
	for _, gid := range p.User.AdditionalGids {
		out.AdditionalGroups = append(out.AdditionalGroups, int(gid))
	}
	for _, r := range p.Rlimits {
		kind, ok := rlimits[r.Type]
		if !ok {
			return nil, fmt.Errorf("unknown resource limit %q", r.Type)
		}
		out.Rlimits = append(out.Rlimits, configs.Rlimit{Type: kind, Hard: r.Hard, Soft: r.Soft})
	}
	if p.Terminal {
		out.ConsoleSocket = os.NewFile(uintptr(console), "console")
	} else {
		out.Stdin, out.Stdout, out.Stderr = os.Stdin, os.Stdout, os.Stderr
	}
	return out, nil
}

// rlimits are the resource limits by the names of the OCI specification.
var rlimits = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
	"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}
