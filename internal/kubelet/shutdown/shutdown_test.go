// SPDX-License-Identifier: Apache-2.0

package shutdown

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// logind is a bus with nobody on it but systemd: it says how long it lets itself be
// delayed, and gives out locks.
type logind struct {
	t     *testing.T
	conf  string
	locks chan *os.File // our ends of the locks that were given

	mu   sync.Mutex
	conn *net.UnixConn
}

func (l *logind) serve(c *net.UnixConn) {
	l.conn = c
	r := bufio.NewReader(c)
	for { // the handshake
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch line = strings.TrimLeft(strings.TrimSpace(line), "\x00"); {
		case line == "BEGIN":
			l.answer(r)
			return
		case line == "NEGOTIATE_UNIX_FD":
			_, _ = c.Write([]byte("AGREE_UNIX_FD\r\n"))
		case line == "AUTH":
			_, _ = c.Write([]byte("REJECTED EXTERNAL\r\n"))
		default:
			_, _ = c.Write([]byte("OK 1234deadbeef\r\n"))
		}
	}
}

func (l *logind) answer(r *bufio.Reader) {
	for serial := uint32(100); ; serial++ {
		m, err := dbus.DecodeMessage(r)
		if err != nil {
			return
		}
		var body []any
		var oob []byte
		switch member, _ := m.Headers[dbus.FieldMember].Value().(string); member {
		case "Hello":
			body = []any{":1.1"}
		case "Get":
			micros := uint64(5_000_000)
			if text, err := os.ReadFile(l.conf); err == nil && strings.Contains(string(text), "InhibitDelayMaxSec=30\n") {
				micros = 30_000_000
			}
			body = []any{dbus.MakeVariant(micros)}
		case "Inhibit":
			ours, theirs, err := os.Pipe()
			if err != nil {
				l.t.Error(err)
				return
			}
			defer theirs.Close()
			l.locks <- ours
			body, oob = []any{dbus.UnixFDIndex(0)}, unix.UnixRights(int(theirs.Fd()))
			l.reply(m, serial, body, oob)
			theirs.Close()
			continue
		}
		l.reply(m, serial, body, oob)
	}
}

func (l *logind) reply(to *dbus.Message, serial uint32, body []any, oob []byte) {
	m := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldReplySerial: dbus.MakeVariant(to.Serial()), dbus.FieldSender: dbus.MakeVariant("org.freedesktop.login1")}, Body: body}
	l.send(m, serial, oob)
}

func (l *logind) send(m *dbus.Message, serial uint32, oob []byte) {
	if len(m.Body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(m.Body...))
	}
	if oob != nil {
		m.Headers[dbus.FieldUnixFDs] = dbus.MakeVariant(uint32(1))
	}
	var b bytes.Buffer
	if err := m.EncodeTo(&b, binary.LittleEndian); err != nil {
		l.t.Error(err)
		return
	}
	binary.LittleEndian.PutUint32(b.Bytes()[8:], serial)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, _, err := l.conn.WriteMsgUnix(b.Bytes(), oob, nil); err != nil {
		l.t.Log(err) // the other side may be gone
	}
}

func (l *logind) announce(begins bool) {
	l.send(&dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{dbus.FieldPath: dbus.MakeVariant(loginPath),
		dbus.FieldInterface: dbus.MakeVariant(manager), dbus.FieldMember: dbus.MakeVariant("PrepareForShutdown")}, Body: []any{begins}}, 9000, nil)
}

// A shutdown is delayed until all has ended, and what is cancelled can come again.
func TestWatcher(t *testing.T) {
	dir := t.TempDir()
	l := &logind{t: t, conf: filepath.Join(dir, "conf", "99-kubelet.conf"), locks: make(chan *os.File, 8)}
	listener, err := net.Listen("unix", filepath.Join(dir, "bus"))
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		c, err := listener.Accept()
		if err == nil {
			l.serve(c.(*net.UnixConn))
			c.Close()
		}
	})
	happened := make(chan string, 8)
	end := make(chan struct{})
	w := &Watcher{Groups: []Group{{0, 20 * time.Second}, {2000000000, 10 * time.Second}}, ConfDir: filepath.Join(dir, "conf"), Logger: slog.New(slog.DiscardHandler),
		Begin: func(context.Context) { happened <- "begin"; <-end }, Cancel: func() { happened <- "cancel" },
		Connect: func(ctx context.Context) (*dbus.Conn, error) {
			return dbus.Connect("unix:path="+filepath.Join(dir, "bus"), dbus.WithContext(ctx))
		}}
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); listener.Close(); running.Wait() })
	held := func(lock *os.File) bool { // a lock that was given back is an end of file
		if err := lock.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err := lock.Read(make([]byte, 1))
		return os.IsTimeout(err)
	}
	lock := wait(t, l.locks)
	defer lock.Close()
	l.announce(true)
	if got := wait(t, happened); got != "begin" {
		t.Errorf("got %s", got)
	}
	if !held(lock) {
		t.Error("the lock was given back while pods run")
	}
	close(end)
	for deadline := time.Now().Add(time.Minute); held(lock); {
		if time.Now().After(deadline) {
			t.Fatal("the lock was not given back")
		}
	}
	l.announce(false)
	if got := wait(t, happened); got != "cancel" {
		t.Errorf("got %s", got)
	}
	next := wait(t, l.locks)
	defer next.Close()
	if !held(next) {
		t.Error("the lock was not taken again")
	}
}

func wait[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing happened")
		panic("unreachable")
	}
}
