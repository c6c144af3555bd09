// SPDX-License-Identifier: Apache-2.0

package node

import (
	"crypto/tls"
	"sync"
	"time"
)

// renewEvery is how often a running node looks whether its certificate is to be
// renewed.
const renewEvery = 12 * time.Hour

// serving is the certificate of the node agent's server, renewed while it runs.
type serving struct {
	issue func() (tls.Certificate, error)

	mu      sync.Mutex // guards all below
	current *tls.Certificate
	checked time.Time
}

// get is a tls.Config's GetCertificate.
func (s *serving) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && time.Since(s.checked) < renewEvery {
		return s.current, nil
	}
	s.checked = time.Now()
	next, err := s.issue()
	if err == nil {
		s.current = &next
	}
	if s.current == nil {
		return nil, err
	}
	return s.current, nil
}
