// SPDX-License-Identifier: Apache-2.0

package component

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	cliflag "k8s.io/component-base/cli/flag"

	"kaji/internal/apiserver/metrics"
	"kaji/internal/client/remote"
	"kaji/internal/kubelet/server"
	"kaji/internal/pki"
	"kaji/internal/scheduler/flags"
)

// web serves a component's health checks and metrics over TLS, to those whom the
// API server knows or who say nothing of themselves. Paths that are always
// allowed are for all of them, the others for those whom it allows.
type web struct {
	name     string // of the component, for its certificate
	serving  *flags.Serving
	trust    *flags.Authentication
	counts   *metrics.Trust // nil counts nothing
	handler  http.Handler
	log      *slog.Logger
	listener net.Listener
	server   *http.Server
}

// listen opens the port; nothing is answered before run. It does nothing
// without a port.
func (w *web) listen() error {
	if w.serving.SecurePort == 0 {
		return nil
	}
	config, err := w.tls()
	if err != nil {
		return err
	}
	gate, err := w.gate()
	if err != nil {
		return err
	}
	address := net.JoinHostPort(w.serving.BindAddress.String(), strconv.Itoa(w.serving.SecurePort))
	if w.listener, err = net.Listen("tcp", address); err != nil {
		return fmt.Errorf("failed to create listener: %w", err)
	}
	w.server = &http.Server{Handler: gate, TLSConfig: config, ReadHeaderTimeout: 32 * time.Second, IdleTimeout: 90 * time.Second,
		ErrorLog: slog.NewLogLogger(w.log.Handler(), slog.LevelDebug)}
	if w.serving.DisableHTTP2 {
		w.server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	return nil
}

// run serves until ctx ends.
func (w *web) run(ctx context.Context) error {
	if w.server == nil {
		<-ctx.Done()
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = w.server.Close() })
	defer stop()
	if err := w.server.ServeTLS(w.listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (w *web) tls() (*tls.Config, error) {
	s := w.serving
	certificate, err := w.certificate()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
	if s.MinVersion != "" {
		if config.MinVersion, err = cliflag.TLSVersion(s.MinVersion); err != nil {
			return nil, err
		}
	}
	if len(s.CipherSuites) > 0 {
		if config.CipherSuites, err = cliflag.TLSCipherSuites(s.CipherSuites); err != nil {
			return nil, err
		}
	}
	return config, nil
}

// certificate reads the serving certificate, or makes one: kept in --cert-dir
// if there is one, else for the life of the process.
func (w *web) certificate() (tls.Certificate, error) {
	s := w.serving
	if s.CertFile != "" || s.KeyFile != "" {
		return tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
	}
	if s.CertDir != "" {
		cert, key := filepath.Join(s.CertDir, w.name+".crt"), filepath.Join(s.CertDir, w.name+".key")
		if pair, err := tls.LoadX509KeyPair(cert, key); err == nil {
			return pair, nil
		}
	}
	dir, err := os.MkdirTemp("", "kaji-serving-")
	if err != nil {
		return tls.Certificate{}, err
	}
	defer os.RemoveAll(dir)
	keep := dir
	if s.CertDir != "" {
		keep = s.CertDir
	}
	ca, err := pki.EnsureCA(dir, "ca", w.name+"-ca")
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf := pki.Leaf{CommonName: w.name, DNSNames: []string{"localhost", hostname()}, IPs: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}
	pair, err := ca.Ensure(keep, w.name, leaf)
	if err != nil {
		return tls.Certificate{}, err
	}
	return pair.TLS()
}

// gate lets requests through to the handler.
func (w *web) gate() (http.Handler, error) {
	d := &server.Delegate{Anonymous: true, NoWebhook: true}
	if w.trust.ClientCAFile != "" {
		data, err := os.ReadFile(w.trust.ClientCAFile)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		d.ClientCA = func() *x509.CertPool { return pool }
		if !pool.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s holds no certificate", w.trust.ClientCAFile)
		}
	}
	ask := &server.Delegate{}
	for _, use := range []struct {
		file string
		of   *server.Delegate
	}{{w.trust.Kubeconfig, d}, {w.trust.AuthorizationKubeconfig, ask}} {
		if use.file == "" {
			continue
		}
		config, err := restConfig(use.file, "", w.name)
		if err != nil {
			return nil, err
		}
		if use.of.Client, err = remote.New(config); err != nil {
			return nil, err
		}
	}
	d.NoWebhook = d.Client == nil
	authorize := func(ctx context.Context, u user.Info, verb, path string) (authorizer.Decision, error) {
		if slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) || w.open(path) {
			return authorizer.DecisionAllow, nil
		}
		if ask.Client == nil {
			return authorizer.DecisionNoOpinion, nil
		}
		decision, _, err := ask.Authorize(ctx, authorizer.AttributesRecord{User: u, Verb: verb, Path: path})
		return decision, err
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		began := time.Now()
		who, ok, err := d.AuthenticateRequest(r)
		w.counts.Authenticated(who, ok, err, time.Since(began))
		if err != nil || !ok {
			http.Error(rw, "Unauthorized", http.StatusUnauthorized)
			return
		}
		began = time.Now()
		verb := strings.ToLower(r.Method)
		decision, err := authorize(r.Context(), who.User, verb, r.URL.Path)
		w.counts.Authorized(decision, err, time.Since(began))
		switch {
		case decision == authorizer.DecisionAllow:
			w.handler.ServeHTTP(rw, r)
		case err != nil:
			http.Error(rw, "Internal Server Error", http.StatusInternalServerError)
		default:
			http.Error(rw, fmt.Sprintf("forbidden: User %q cannot %s path %q", who.User.GetName(), verb, r.URL.Path), http.StatusForbidden)
		}
	}), nil
}

// open says whether everybody may read a path.
func (w *web) open(path string) bool {
	for _, allowed := range w.trust.AlwaysAllowPaths {
		if prefix, ok := strings.CutSuffix(allowed, "*"); ok && strings.HasPrefix(path, prefix) || path == allowed {
			return true
		}
	}
	return false
}
