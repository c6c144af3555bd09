// SPDX-License-Identifier: Apache-2.0

// Package gate decides who is let in: names and passwords of a Secret, and how
// many requests an address may make. Package ingress asks before it forwards.
package gate

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// Passwords are the entries of an htpasswd file. It is safe for concurrent use.
type Passwords struct {
	hashes map[string]string

	mu sync.Mutex
	// passed are digests of what was right before: bcrypt is slow by design.
	passed map[[sha256.Size]byte]bool
}

// remembered bounds Passwords.passed.
const remembered = 1024

// ParsePasswords reads an htpasswd file. Lines it cannot read match nobody.
func ParsePasswords(file []byte) *Passwords {
	p := &Passwords{hashes: map[string]string{}, passed: map[[sha256.Size]byte]bool{}}
	for line := range strings.Lines(string(file)) {
		line = strings.TrimSpace(line)
		name, hash, ok := strings.Cut(line, ":")
		if ok && name != "" && !strings.HasPrefix(line, "#") {
			hash, _, _ = strings.Cut(hash, ":")
			p.hashes[name] = hash
		}
	}
	return p
}

// PasswordMap reads a map from names to hashes.
func PasswordMap(data map[string][]byte) *Passwords {
	p := ParsePasswords(nil)
	for name, hash := range data {
		p.hashes[name] = strings.TrimSpace(string(hash))
	}
	return p
}

// Check says whether the password is the name's.
func (p *Passwords) Check(name, password string) bool {
	hash, ok := p.hashes[name]
	if !ok {
		return false
	}
	digest := sha256.Sum256([]byte(name + "\x00" + hash + "\x00" + password))
	p.mu.Lock()
	known := p.passed[digest]
	p.mu.Unlock()
	if known {
		return true
	}
	if !matches(hash, password) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.passed) >= remembered {
		clear(p.passed)
	}
	p.passed[digest] = true
	return true
}

func matches(hash, password string) bool {
	switch {
	case strings.HasPrefix(hash, "$2"):
		return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
	case strings.HasPrefix(hash, "$apr1$"):
		salt, _, _ := strings.Cut(strings.TrimPrefix(hash, "$apr1$"), "$")
		return equal(hash, apr1(password, salt))
	case strings.HasPrefix(hash, "{SHA}"):
		sum := sha1.Sum([]byte(password))
		return equal(hash, "{SHA}"+base64.StdEncoding.EncodeToString(sum[:]))
	}
	return false
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// apr1 is Apache's variant of the MD5 crypt, what htpasswd makes by default.
func apr1(password, salt string) string {
	const magic = "$apr1$"
	salt = salt[:min(len(salt), 8)]
	inner := md5.Sum([]byte(password + salt + password))
	text := []byte(password + magic + salt)
	for left := len(password); left > 0; left -= md5.Size {
		text = append(text, inner[:min(left, md5.Size)]...)
	}
	for left := len(password); left > 0; left >>= 1 {
		if left&1 == 1 {
			text = append(text, 0)
		} else {
			text = append(text, password[0])
		}
	}
	sum := md5.Sum(text)
	for i := range 1000 {
		text = text[:0]
		text = turn(text, i&1 == 1, password, sum)
		if i%3 != 0 {
			text = append(text, salt...)
		}
		if i%7 != 0 {
			text = append(text, password...)
		}
		sum = md5.Sum(turn(text, i&1 == 0, password, sum))
	}
	return magic + salt + "$" + crypt64(sum)
}

func turn(text []byte, word bool, password string, sum [md5.Size]byte) []byte {
	if word {
		return append(text, password...)
	}
	return append(text, sum[:]...)
}

// crypt64 is the alphabet and the order of bytes of crypt(3).
func crypt64(sum [md5.Size]byte) string {
	const alphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	var out strings.Builder
	write := func(v uint32, n int) {
		for range n {
			out.WriteByte(alphabet[v&63])
			v >>= 6
		}
	}
	for _, at := range [][3]int{{0, 6, 12}, {1, 7, 13}, {2, 8, 14}, {3, 9, 15}, {4, 10, 5}} {
		write(uint32(sum[at[0]])<<16|uint32(sum[at[1]])<<8|uint32(sum[at[2]]), 4)
	}
	write(uint32(sum[11]), 2)
	return out.String()
}
