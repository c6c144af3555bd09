// SPDX-License-Identifier: Apache-2.0

package guide

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kaji/test/machine"
)

// patience is how long a command may take, and how long one is repeated.
const patience = 100 * time.Second

// session is a shell that commands are typed into, one after the other. It keeps
// directory, variables and jobs. Each command writes into a file of its own, so
// that what it leaves running mixes with nothing.
type session struct {
	machine *machine.Machine
	dir     string // of output files
	cmd     *exec.Cmd
	input   io.WriteCloser
	codes   *bufio.Reader // the exit status of each command, a line each
	count   int
}

// begin starts a shell in the source tree.
func begin(ctx context.Context, m *machine.Machine, dir string) (*session, error) {
	s := &session{machine: m, dir: dir}
	s.cmd = m.Command(ctx, "/bin/bash", "--noprofile", "--norc")
	s.cmd.Dir = m.Root
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.cmd.Cancel = func() error { return syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) }
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer write.Close()
	s.cmd.ExtraFiles = []*os.File{write}
	s.codes = bufio.NewReader(read)
	if s.input, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return s, m.Start(s.cmd)
}

// end ends the shell and what it left running.
func (s *session) end() {
	s.input.Close()
	// The group may be gone already; the shell's own end says nothing more.
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGTERM)
	_ = s.cmd.Wait()
}

// run types a command and waits for it. It returns what it printed, and its exit
// status.
func (s *session) run(st step) (printed string, code int, err error) {
	s.count++
	file := filepath.Join(s.dir, fmt.Sprintf("output-%d", s.count))
	if err := os.WriteFile(file+".sh", []byte(st.command+"\n"), 0o644); err != nil {
		return "", 0, err
	}
	from, to, finish := "/dev/null", file, func() string {
		data, _ := os.ReadFile(file) // not there yet: nothing was printed
		return string(data)
	}
	if st.interactive() {
		t, err := openTerminal(st)
		if err != nil {
			return "", 0, err
		}
		defer t.close()
		from, to, finish = t.name, t.name, t.finish
	}
	fmt.Fprintf(s.input, "eval \"$(<%s.sh)\" <%s >%s 2>&1 3>&-; echo $? >&3\n", file, from, to)
	if code, err = s.status(); err != nil {
		return finish(), 0, fmt.Errorf("it did not end: %w", err)
	}
	if !st.background() {
		return finish(), code, nil
	}
	// What a background command prints comes when it comes.
	for deadline := time.Now().Add(patience); ; <-time.After(50 * time.Millisecond) {
		printed = finish()
		if ok, _ := matches(st.expected, printed); ok || time.Now().After(deadline) {
			return printed, code, nil
		}
	}
}

// status reads the exit status of the command that was typed last.
func (s *session) status() (int, error) {
	type answer struct {
		line string
		err  error
	}
	came := make(chan answer, 1)
	go func() {
		line, err := s.codes.ReadString('\n')
		came <- answer{line, err}
	}()
	select {
	case a := <-came:
		if a.err != nil {
			return 0, a.err
		}
		return strconv.Atoi(strings.TrimSpace(a.line))
	case <-time.After(2 * patience):
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // it is reported as an error below
		return 0, context.DeadlineExceeded
	}
}

// terminal is a pseudo-terminal at whose other end somebody types what a page
// shows behind the container's prompt.
type terminal struct {
	name   string
	master *os.File
	slave  *os.File
	done   sync.WaitGroup
	ended  chan struct{} // closed when endMark was read

	mu   sync.Mutex // guards text
	text []byte
}

const prompt = "/ # "

// endMark follows all that a command wrote to its terminal.
const endMark = "\x1c"

func openTerminal(st step) (*terminal, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)); err != nil {
		master.Close()
		return nil, err
	}
	t := &terminal{name: "/dev/pts/" + strconv.Itoa(n), master: master, ended: make(chan struct{})}
	// Held open, or the master reads an end before the command has opened it.
	if t.slave, err = os.OpenFile(t.name, os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		master.Close()
		return nil, err
	}
	var typed []string
	for _, l := range st.expected {
		if text, ok := strings.CutPrefix(l, prompt); ok {
			typed = append(typed, text)
		}
	}
	t.done.Go(func() { t.converse(typed) })
	return t, nil
}

// converse reads what comes and types the next line at each prompt; where none
// comes for a while it presses enter, as kubectl advises.
func (t *terminal) converse(typed []string) {
	came := make(chan []byte)
	go func() {
		defer close(came)
		for {
			buffer := make([]byte, 4096)
			n, err := t.master.Read(buffer)
			if n > 0 {
				came <- buffer[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	impatience := time.NewTicker(3 * time.Second)
	defer impatience.Stop()
	fresh := false // something came since the last line was typed
	for {
		select {
		case data, ok := <-came:
			if !ok {
				return
			}
			t.mu.Lock()
			data, end := bytes.CutSuffix(data, []byte(endMark))
			t.text = append(t.text, data...)
			asked := strings.HasSuffix(string(t.text), prompt)
			t.mu.Unlock()
			if end {
				close(t.ended)
				continue
			}
			fresh = true
			if asked && len(typed) > 0 {
				_, _ = io.WriteString(t.master, typed[0]+"\n") // a closed terminal ends the loop
				typed, fresh = typed[1:], false
			}
		case <-impatience.C:
			if fresh && len(typed) > 0 && strings.Contains(t.transcript(), "try pressing enter") {
				_, _ = io.WriteString(t.master, "\n")
			}
		}
	}
}

// finish returns the transcript of a command that has ended, when all of it was
// read.
func (t *terminal) finish() string {
	if _, err := io.WriteString(t.slave, endMark); err == nil {
		<-t.ended
	}
	return t.transcript()
}

// transcript is what the terminal shows, without empty prompts.
func (t *terminal) transcript() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for _, l := range strings.Split(strings.ReplaceAll(string(t.text), "\r", ""), "\n") {
		if l != strings.TrimSpace(prompt) && l != prompt {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

func (t *terminal) close() {
	t.slave.Close()
	t.master.Close()
	t.done.Wait()
}
