// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/oci"
)

const (
	// maxExecOutput is what ExecSync keeps of each stream; a message of gRPC
	// holds no more.
	maxExecOutput = 16 << 20 / 2
	// drainWait is how long ExecSync waits for output that children of the
	// command keep open after its end.
	drainWait = 2 * time.Second
)

// running returns a container if it runs.
func (r *Runtime) running(id string) (*container, error) {
	c, err := r.findContainer(id)
	if err != nil {
		return nil, err
	}
	if rec := c.record.Load(); rec.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, status.Errorf(codes.FailedPrecondition, "container is in %v state", rec.State)
	}
	return c, nil
}

// processOf is a process like the container's own, with another command.
func (r *Runtime) processOf(c *container, command []string, tty bool) (*specs.Process, error) {
	p := new(specs.Process)
	if err := readRecord(filepath.Join(r.containerRoot(c.record.Load().ID), "process.json"), p); err != nil {
		return nil, err
	}
	p.Args, p.Terminal = command, tty
	if tty && !slices.ContainsFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, "TERM=") }) {
		p.Env = append(p.Env, "TERM=xterm")
	}
	return p, nil
}

// ExecSync runs a command in a container and returns its output and exit code.
func (r *Runtime) ExecSync(ctx context.Context, req *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	if len(req.GetCmd()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "cmd must not be empty")
	}
	c, err := r.running(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	process, err := r.processOf(c, req.GetCmd(), false)
	if err != nil {
		return nil, err
	}
	timeout := time.Duration(req.GetTimeout()) * time.Second
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	var stdout, stderr capture
	code, err := r.exec(ctx, c, process, oci.Exec{}, &stdout, &stderr)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, status.Errorf(codes.DeadlineExceeded, "failed to exec in container: timeout %s exceeded: %v", timeout, err)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to exec in container: %w", err)
	}
	return &runtimeapi.ExecSyncResponse{Stdout: stdout.bytes(), Stderr: stderr.bytes(), ExitCode: int32(code)}, nil
}

// exec runs a process without a terminal, copies its output and waits for its
// end. When ctx ends first, the process is killed.
func (r *Runtime) exec(ctx context.Context, c *container, process *specs.Process, e oci.Exec, stdout, stderr io.Writer) (int, error) {
	e.Root, e.ID, e.Process = r.ociRoot(), c.record.Load().ID, process
	var copying sync.WaitGroup
	var readers []*os.File
	for _, out := range []struct {
		end *(*os.File)
		to  io.Writer
	}{{&e.Stdout, stdout}, {&e.Stderr, stderr}} {
		if out.to == nil {
			continue
		}
		reader, writer, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		defer reader.Close()
		defer writer.Close()
		*out.end, readers = writer, append(readers, reader)
		copying.Go(func() {
			_, _ = io.Copy(out.to, reader)
			_, _ = io.Copy(io.Discard, reader) // a reader that left must not hold the process back
		})
	}
	run, err := r.helper.Exec(ctx, e)
	for _, f := range []*os.File{e.Stdout, e.Stderr} {
		if f != nil {
			_ = f.Close()
		}
	}
	if err != nil {
		for _, reader := range readers {
			_ = reader.Close()
		}
		copying.Wait()
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = run.Kill() })
	code, err := run.Wait()
	stop()
	for _, reader := range readers {
		_ = reader.SetReadDeadline(time.Now().Add(drainWait))
	}
	copying.Wait()
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	return code, err
}

// capture keeps the beginning of what is written.
type capture struct{ buf bytes.Buffer }

func (c *capture) Write(p []byte) (int, error) {
	if room := maxExecOutput - c.buf.Len(); room > 0 {
		c.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (c *capture) bytes() []byte { return c.buf.Bytes() }

// parsePrefixes reads comma-separated address ranges.
func parsePrefixes(list string) (out []netip.Prefix, err error) {
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		p, err := netip.ParsePrefix(item)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}
