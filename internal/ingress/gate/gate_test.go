// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"kaji/internal/ingress/gate"
)

// The apr1 hashes are openssl's.
func TestPasswords(t *testing.T) {
	slow, err := bcrypt.GenerateFromPassword([]byte("b"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	p := gate.ParsePasswords([]byte("# a comment:x\nlong:$apr1$abcdefgh$atvc6GL6/8/dhETDBCXwR.\r\nshort:$apr1$xy$T6yk43HTfQwCY.mtbxwJ8/\n" +
		"sha:{SHA}hvfkN/qlp/zhXR3cuerq6jd2Z7g=\nslow:" + string(slow) + "\nplain:secret\nempty:\nnonsense\n"))
	for name, password := range map[string]string{"long": "pässword-long-enough-17", "short": "a", "slow": "b", "sha": "a"} {
		for range 2 { // the second time from memory
			if !p.Check(name, password) {
				t.Errorf("%s is not let in", name)
			}
		}
		if p.Check(name, password+"x") || p.Check(name, "") {
			t.Errorf("%s is let in with another password", name)
		}
	}
	for _, name := range []string{"plain", "empty", "nobody", "", "nonsense", "# a comment"} {
		if p.Check(name, "secret") || p.Check(name, "") || p.Check(name, "x") {
			t.Errorf("%q is let in", name)
		}
	}
	if m := gate.PasswordMap(map[string][]byte{"zoe": []byte("$apr1$xy$T6yk43HTfQwCY.mtbxwJ8/\n")}); !m.Check("zoe", "a") || m.Check("zoe", "b") {
		t.Error("the map is not read")
	}
}

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l gate.Limiter
		one, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		count := func(a netip.Addr) (n int) {
			for range 20 {
				if l.Allow("uid", a, 2, 4) {
					n++
				}
			}
			return n
		}
		if got := count(one); got != 4 {
			t.Errorf("%d at once, want 4", got)
		}
		if got := count(other); got != 4 {
			t.Errorf("another client has %d, want 4", got)
		}
		time.Sleep(time.Second)
		if got := count(one); got != 2 {
			t.Errorf("%d after a second, want 2", got)
		}
		six := func(s string) bool { return l.Allow("six", netip.MustParseAddr(s), 1, 1) }
		if !six("2001:db8::1") || six("2001:db8::2") || !six("2001:db8:0:1::1") {
			t.Error("IPv6 clients do not count by /64")
		}
	})
}
