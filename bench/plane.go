// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// plane is a control plane that a run started for itself: components of this
// program, each a process of its own, so that the cost of each can be told.
type plane struct {
	*Target
	binary string
	dir    string
	config string // path of the administrator's kubeconfig
	stops  []func()
}

// startPlane starts an API server with an empty embedded store on loopback.
func startPlane(ctx context.Context, binary string) (*plane, error) {
	dir, err := os.MkdirTemp("", "kaji-bench-")
	if err != nil {
		return nil, err
	}
	p := &plane{binary: binary, dir: dir, config: filepath.Join(dir, "data", "admin.kubeconfig")}
	port, err := freePort()
	if err != nil {
		p.stop()
		return nil, err
	}
	pid, err := p.run(ctx, "apiserver", "--data-dir", filepath.Join(dir, "data"), "--bind-address", "127.0.0.1", "--secure-port", strconv.Itoa(port), "--allow-privileged")
	if err != nil {
		p.stop()
		return nil, err
	}
	if err := p.await(ctx, pid); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// await waits until the API server answers /readyz.
func (p *plane) await(ctx context.Context, pid int) error {
	process, err := Watch(pid)
	if err != nil {
		return p.explain("apiserver", err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = poll(ctx, 10*time.Millisecond, func() (bool, error) {
		t, err := FromKubeconfig("kaji", p.config, process)
		if err != nil {
			return false, nil // not written yet
		}
		c, err := t.client()
		if err != nil {
			return false, err
		}
		p.Target = t
		_, err = c.get(ctx, "/readyz", "*/*")
		return err == nil, nil
	})
	if err != nil {
		return p.explain("apiserver", err)
	}
	return nil
}

// run starts a verb of the program and returns its process id. It lives until stop.
func (p *plane) run(ctx context.Context, verb string, args ...string) (int, error) {
	return p.exec(ctx, verb, p.binary, append([]string{verb}, args...)...)
}

// exec starts a program, whose log is called name.log.
func (p *plane) exec(ctx context.Context, name, binary string, args ...string) (int, error) {
	log, err := os.Create(filepath.Join(p.dir, name+".log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	p.stops = append(p.stops, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	return cmd.Process.Pid, nil
}

// stop ends what was started, the newest first, and removes its files.
func (p *plane) stop() {
	for len(p.stops) > 0 {
		last := len(p.stops) - 1
		p.stops[last]()
		p.stops = p.stops[:last]
	}
	_ = os.RemoveAll(p.dir)
}

// explain adds the end of a component's log to an error.
func (p *plane) explain(verb string, err error) error {
	f, openErr := os.Open(filepath.Join(p.dir, verb+".log"))
	if openErr != nil {
		return err
	}
	defer f.Close()
	if st, statErr := f.Stat(); statErr == nil && st.Size() > 2000 {
		_, _ = f.Seek(-2000, io.SeekEnd)
	}
	tail, _ := io.ReadAll(f)
	return errors.Join(fmt.Errorf("%s did not start: %w", verb, err), errors.New(string(tail)))
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
