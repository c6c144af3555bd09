// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/utils/exec"

	"kaji/internal/container/oci"
)

// streamServer serves the URLs that Exec, Attach and PortForward give out.
type streamServer struct {
	listener net.Listener
	server   streaming.Server
	http     *http.Server
}

func newStreamServer(r *Runtime, address string) (*streamServer, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening for exec, attach and port-forward: %w", err)
	}
	config := streaming.DefaultConfig
	config.Addr = listener.Addr().String()
	config.BaseURL = &url.URL{Scheme: "http", Host: config.Addr}
	server, err := streaming.NewServer(config, streamRuntime{r})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return &streamServer{listener, server, &http.Server{Handler: websockets(server, config.Addr), ReadHeaderTimeout: 30 * time.Second}}, nil
}

func (s *streamServer) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = s.http.Close() })()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *streamServer) close() error {
	_ = s.listener.Close() // may be closed by run
	return s.http.Close()
}

// Exec gives out a URL to run a command.
func (r *Runtime) Exec(_ context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	if _, err := r.running(req.GetContainerId()); err != nil {
		return nil, err
	}
	out, err := r.streams.server.GetExec(req)
	if err != nil {
		return nil, err
	}
	out.Url, err = withStreams(out.GetUrl(), req.GetStdin(), req.GetStdout(), req.GetStderr(), req.GetTty())
	return out, err
}

// Attach gives out a URL to join a container's streams.
func (r *Runtime) Attach(_ context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	if _, err := r.running(req.GetContainerId()); err != nil {
		return nil, err
	}
	out, err := r.streams.server.GetAttach(req)
	if err != nil {
		return nil, err
	}
	out.Url, err = withStreams(out.GetUrl(), req.GetStdin(), req.GetStdout(), req.GetStderr(), req.GetTty())
	return out, err
}

// PortForward gives out a URL to reach ports of a pod.
func (r *Runtime) PortForward(_ context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	s, err := r.findSandbox(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	if !s.record.Load().Ready {
		return nil, status.Errorf(codes.FailedPrecondition, "sandbox container is not running")
	}
	return r.streams.server.GetPortForward(req)
}

// streamRuntime carries out what the streaming server is asked for.
type streamRuntime struct{ r *Runtime }

var _ streaming.Runtime = streamRuntime{}

func (s streamRuntime) Exec(ctx context.Context, id string, command []string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	c, err := s.r.running(id)
	if err != nil {
		return err
	}
	process, err := s.r.processOf(c, command, tty)
	if err != nil {
		return err
	}
	var code int
	if tty {
		code, err = s.r.execTerminal(ctx, c, oci.Exec{Process: process}, in, out, resize)
	} else {
		code, err = s.r.execPipes(ctx, c, oci.Exec{Process: process}, in, out, errOut)
	}
	if err != nil {
		return fmt.Errorf("failed to exec in container: %w", err)
	}
	if code != 0 {
		return exec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
	}
	return nil
}

// execPipes runs a command with pipes for its streams.
func (r *Runtime) execPipes(ctx context.Context, c *container, e oci.Exec, in io.Reader, out, errOut io.WriteCloser) (int, error) {
	if in != nil {
		reader, writer, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		defer reader.Close()
		e.Stdin = reader
		// Ends when the client's stream does, which the server sees to.
		go func() {
			_, _ = io.Copy(writer, in)
			_ = writer.Close()
		}()
	}
	var stdout, stderr io.Writer
	if out != nil {
		stdout = out
	}
	if errOut != nil {
		stderr = errOut
	}
	return r.exec(ctx, c, e.Process, e, stdout, stderr)
}

// execTerminal runs a command on a terminal.
func (r *Runtime) execTerminal(ctx context.Context, c *container, e oci.Exec, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) (int, error) {
	e.Root, e.ID = r.ociRoot(), c.record.Load().ID
	run, err := r.helper.Exec(ctx, e)
	if err != nil {
		return 0, err
	}
	terminal := run.Terminal
	defer terminal.Close()
	done := make(chan struct{})
	go followSize(terminal, resize, done)
	defer close(done)
	if in != nil {
		go func() { _, _ = io.Copy(terminal, in) }()
	}
	var copying sync.WaitGroup
	if out != nil {
		copying.Go(func() { _, _ = io.Copy(out, terminal) })
	}
	stop := context.AfterFunc(ctx, func() { _ = run.Kill() })
	code, err := run.Wait()
	stop()
	copying.Wait() // the terminal ends with its last process
	return code, err
}

// followSize gives a terminal the sizes that the client's window takes.
func followSize(terminal *os.File, resize <-chan remotecommand.TerminalSize, done <-chan struct{}) {
	for {
		select {
		case size, ok := <-resize:
			if !ok {
				return
			}
			raw, err := terminal.SyscallConn()
			if err != nil {
				return
			}
			_ = raw.Control(func(fd uintptr) {
				_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
			})
		case <-done:
			return
		}
	}
}

func (s streamRuntime) Attach(ctx context.Context, id string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	c, err := s.r.running(id)
	if err != nil {
		return err
	}
	m, err := c.sandbox.connection()
	if err != nil {
		return err
	}
	rec := c.record.Load()
	a, err := m.Attach(rec.ID)
	if err != nil {
		return fmt.Errorf("failed to attach container: %w", err)
	}
	defer a.Close()
	done := make(chan struct{})
	defer close(done)
	leave := func() { _, _ = a.Stdout.Close(), a.Stderr.Close() }
	if rec.Config.value.GetTty() && a.Input != nil {
		go followSize(a.Input, resize, done)
	}
	if in != nil && a.Input != nil {
		go func() {
			_, err := io.Copy(a.Input, in)
			switch {
			case err != nil || rec.Config.value.GetTty():
			case rec.Config.value.GetStdinOnce():
				_ = a.Input.Close()
				_ = m.CloseInput(rec.ID)
			default: // the container goes on reading from others; this client has said all
				leave()
			}
		}()
	}
	var copying sync.WaitGroup
	for _, stream := range []struct {
		to   io.Writer
		from *os.File
	}{{orDiscard(out), a.Stdout}, {orDiscard(errOut), a.Stderr}} {
		copying.Go(func() {
			if _, err := io.Copy(stream.to, stream.from); err != nil {
				_ = stream.from.Close() // the client has left
			}
		})
	}
	stop := context.AfterFunc(ctx, leave)
	defer stop()
	copying.Wait()
	return nil
}

func orDiscard(w io.WriteCloser) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

func (s streamRuntime) PortForward(ctx context.Context, id string, port int32, stream io.ReadWriteCloser) error {
	sandbox, err := s.r.findSandbox(id)
	if err != nil {
		return err
	}
	rec := sandbox.record.Load()
	if !rec.Ready {
		return errors.New("sandbox container is not running")
	}
	netns := s.r.netns(rec.ID)
	if hostNetwork(rec.Config.value) {
		netns = ""
	}
	conn, err := dialIn(ctx, netns, port)
	if err != nil {
		return fmt.Errorf("failed to execute portforward in network namespace %q: %w", netns, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var copying sync.WaitGroup
	copying.Go(func() {
		_, _ = io.Copy(stream, conn)
		_ = stream.Close()
	})
	_, _ = io.Copy(conn, stream)
	if half, ok := conn.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
	copying.Wait()
	return nil
}

// dialIn connects to a port on the loopback of a network namespace, of this
// process's own for an empty path.
func dialIn(ctx context.Context, netns string, port int32) (conn net.Conn, err error) {
	dial := func() {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
		if err != nil {
			var second error
			if conn, second = d.DialContext(ctx, "tcp6", net.JoinHostPort("::1", strconv.Itoa(int(port)))); second == nil {
				err = nil
			}
		}
	}
	if netns == "" {
		dial()
		return conn, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread is not given back: it ends with this goroutine, and the
		// namespace with it.
		runtime.LockOSThread()
		fd, openErr := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if openErr != nil {
			err = &os.PathError{Op: "open", Path: netns, Err: openErr}
			return
		}
		defer unix.Close(fd)
		if err = os.NewSyscallError("setns", unix.Setns(fd, unix.CLONE_NEWNET)); err == nil {
			dial()
		}
	}()
	<-done
	return conn, err
}
