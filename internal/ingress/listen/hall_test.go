// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"
)

// said is a connection on which the client has said something and says no more.
type said struct {
	net.Conn
	from io.Reader
	to   io.Writer
}

func (s *said) Read(p []byte) (int, error)       { return s.from.Read(p) }
func (s *said) Write(p []byte) (int, error)      { return s.to.Write(p) }
func (s *said) Close() error                     { return nil }
func (s *said) SetWriteDeadline(time.Time) error { return nil }
func (s *said) SetReadDeadline(time.Time) error  { return nil }

// hello is a client's first message.
func hello(name string, protocols ...string) []byte {
	var out bytes.Buffer
	_ = tls.Client(&said{from: bytes.NewReader(nil), to: &out}, &tls.Config{ServerName: name, NextProtos: protocols, InsecureSkipVerify: true}).Handshake() // nobody answers
	return out.Bytes()
}

// Whatever a client says first, the server behind the hall gets all of it, and
// nothing is answered before.
func FuzzPeek(f *testing.F) {
	for _, seed := range [][]byte{nil, hello("app.test"), hello("*.test", "h2", "http/1.1"), hello("app.test")[:40], []byte("GET / HTTP/1.1\r\n\r\n"),
		{21, 3, 3, 0, 2, 2, 40}, append([]byte{22, 3, 1, 0xff, 0xff}, make([]byte, 70<<10)...), bytes.Repeat([]byte{22, 3, 3, 0, 0}, 100)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var answered bytes.Buffer
		conn := &said{from: bytes.NewReader(data), to: &answered}
		name, read, err := peek(conn)
		if len(read) > maxHello {
			t.Errorf("%d bytes were read", len(read))
		}
		if err != nil && name != "" {
			t.Errorf("name %q and %v", name, err)
		}
		all, err := io.ReadAll(&replayed{Conn: conn, first: read})
		if err != nil || !bytes.Equal(all, data) {
			t.Errorf("%d bytes were said, and %d passed on, %v", len(data), len(all), err)
		}
		if answered.Len() > 0 {
			t.Errorf("answered %x", answered.Bytes())
		}
	})
}

// The name is the one that was asked for.
func TestPeek(t *testing.T) {
	for _, want := range []string{"app.test", "a.very.long.name.of.a.host.example.org"} {
		name, _, err := peek(&said{from: bytes.NewReader(hello(want)), to: io.Discard})
		if name != want || err != nil {
			t.Errorf("got %q, %v", name, err)
		}
	}
}
