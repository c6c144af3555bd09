// SPDX-License-Identifier: Apache-2.0

package component

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/certificate"
	cliflag "k8s.io/component-base/cli/flag"
	configv1beta1 "k8s.io/kubelet/config/v1beta1"

	"kaji/internal/kubelet"
	"kaji/internal/kubelet/server"
	"kaji/internal/lifecycle"
	"kaji/internal/pki"
)

// judge says who may ask the agent's server, and listens for it.
func (a *agent) judge(ctx context.Context) error {
	c := a.settings
	d := &server.Delegate{Client: a.config.Client, Anonymous: *c.Authentication.Anonymous.Enabled, NoWebhook: !*c.Authentication.Webhook.Enabled,
		KeepTokens: c.Authentication.Webhook.CacheTTL.Duration, KeepAllowed: c.Authorization.Webhook.CacheAuthorizedTTL.Duration, KeepDenied: c.Authorization.Webhook.CacheUnauthorizedTTL.Duration}
	if file := c.Authentication.X509.ClientCAFile; file != "" {
		f := &poolFile{path: file}
		if _, err := f.read(); err != nil {
			return fmt.Errorf("unable to load client CA file %s: %w", file, err)
		}
		d.ClientCA = f.get
	}
	a.config.Authenticator = d
	a.config.Authorizer = authorizer.UnconditionalAuthorizer(d)
	if c.Authorization.Mode == configv1beta1.KubeletAuthorizationModeAlwaysAllow {
		a.config.Authorizer = authorizerfactory.NewAlwaysAllowAuthorizer()
	}
	if !*c.EnableServer {
		return nil
	}
	settings, err := a.tls()
	if err != nil {
		return err
	}
	address := net.JoinHostPort(c.Address, strconv.Itoa(int(c.Port)))
	listener, err := kubelet.Listen(ctx, address, a.log)
	if err != nil {
		return fmt.Errorf("kubelet: %w", err)
	}
	a.config.Listener = tls.NewListener(listener, settings)
	return nil
}

func (a *agent) tls() (*tls.Config, error) {
	c := a.settings
	out := &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}}
	var err error
	if c.TLSMinVersion != "" {
		if out.MinVersion, err = cliflag.TLSVersion(c.TLSMinVersion); err != nil {
			return nil, err
		}
	}
	if len(c.TLSCipherSuites) > 0 {
		if out.CipherSuites, err = cliflag.TLSCipherSuites(c.TLSCipherSuites); err != nil {
			return nil, err
		}
	}
	for _, id := range c.TLSCurvePreferences {
		out.CurvePreferences = append(out.CurvePreferences, tls.CurveID(id)) //nolint:gosec // judged by config.Validate
	}
	switch {
	case c.TLSCertFile != "" && c.TLSPrivateKeyFile != "":
		f := &pairFile{cert: c.TLSCertFile, key: c.TLSPrivateKeyFile}
		if _, err := f.get(nil); err != nil {
			return nil, err
		}
		out.GetCertificate = f.get
	case c.ServerTLSBootstrap:
		out.GetCertificate, err = a.requested()
	default:
		out.Certificates, err = a.selfSigned()
	}
	return out, err
}

// leaf is what the server's certificate says.
func (a *agent) leaf() pki.Leaf {
	leaf := pki.Leaf{CommonName: "system:node:" + a.config.NodeName, Organizations: []string{"system:nodes"}, DNSNames: []string{a.config.NodeName}}
	for _, addr := range a.config.NodeIPs {
		leaf.IPs = append(leaf.IPs, addr.AsSlice())
	}
	return leaf
}

func (a *agent) selfSigned() ([]tls.Certificate, error) {
	dir := a.options.CertDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ca, err := pki.EnsureCA(dir, "kubelet-ca", a.config.NodeName+"-ca")
	if err != nil {
		return nil, err
	}
	pair, err := ca.Ensure(dir, "kubelet", a.leaf())
	if err != nil {
		return nil, err
	}
	certificate, err := pair.TLS()
	return []tls.Certificate{certificate}, err
}

// requested asks the cluster for the server's certificate, again before it ends.
func (a *agent) requested() (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	if err := os.MkdirAll(a.options.CertDir, 0o700); err != nil {
		return nil, err
	}
	store, err := certificate.NewFileStore("kubelet-server", a.options.CertDir, a.options.CertDir, a.settings.TLSCertFile, a.settings.TLSPrivateKeyFile)
	if err != nil {
		return nil, fmt.Errorf("failed to initialize server certificate store: %w", err)
	}
	leaf := a.leaf()
	m, err := certificate.NewManager(&certificate.Config{
		ClientsetFn: func(*tls.Certificate) (kubernetes.Interface, error) {
			return kubernetes.NewForConfig(a.credentials.config)
		},
		Template: &x509.CertificateRequest{Subject: pkix.Name{CommonName: leaf.CommonName, Organization: leaf.Organizations},
			DNSNames: leaf.DNSNames, IPAddresses: leaf.IPs},
		SignerName: certificatesv1.KubeletServingSignerName, GetUsages: certificate.DefaultKubeletServingGetUsages, CertificateStore: store,
	})
	if err != nil {
		return nil, fmt.Errorf("failed to initialize server certificate manager: %w", err)
	}
	a.serving = m
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if current := m.Current(); current != nil {
			return current, nil
		}
		return nil, errors.New("no serving certificate available for the kubelet")
	}, nil
}

// poolFile is a file of authorities, which may be replaced.
type poolFile struct {
	path    string
	mu      sync.Mutex
	pool    *x509.CertPool // guarded by mu
	written time.Time      // guarded by mu
}

// get returns the authorities: those of before, while the file is not one.
func (f *poolFile) get() *x509.CertPool {
	pool, _ := f.read()
	return pool
}

func (f *poolFile) read() (*x509.CertPool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err != nil {
		return f.pool, err
	}
	if f.pool != nil && info.ModTime().Equal(f.written) {
		return f.pool, nil
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return f.pool, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return f.pool, errors.New("it holds no certificate")
	}
	f.pool, f.written = pool, info.ModTime()
	return pool, nil
}

// pairFile is a certificate and its key in files, which may be replaced.
type pairFile struct {
	cert, key string
	mu        sync.Mutex
	read      *tls.Certificate // guarded by mu
	written   time.Time        // guarded by mu; the certificate's file
}

func (f *pairFile) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.cert)
	if err == nil && f.read != nil && info.ModTime().Equal(f.written) {
		return f.read, nil
	}
	pair, loadErr := tls.LoadX509KeyPair(f.cert, f.key)
	if err = errors.Join(err, loadErr); err == nil {
		f.read, f.written = &pair, info.ModTime()
	}
	if f.read == nil {
		return nil, err
	}
	return f.read, nil // while files are being replaced, the former pair is good
}

// serve adds to a group what is served besides the agent's own port.
func (a *agent) serve(ctx context.Context, group *lifecycle.Group, k *kubelet.Kubelet) error {
	c := a.settings
	if a.serving != nil {
		group.Go("serving certificate", func(ctx context.Context) error {
			a.serving.Start()
			defer a.serving.Stop()
			<-ctx.Done()
			return nil
		})
	}
	plain := func(name, host string, port int32, handler http.Handler) error {
		if port == 0 {
			return nil
		}
		l, err := kubelet.Listen(ctx, net.JoinHostPort(host, strconv.Itoa(int(port))), a.log)
		if err != nil {
			return fmt.Errorf("kubelet: %s: %w", name, err)
		}
		s := &http.Server{Handler: handler, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 90 * time.Second}
		group.Go(name, func(ctx context.Context) error {
			stop := context.AfterFunc(ctx, func() { _ = s.Close() })
			defer stop()
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		return nil
	}
	handler := k.ReadOnlyHandler()
	health := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz", "/healthz/ping", "/healthz/log", "/healthz/syncloop":
			handler.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
	return errors.Join(plain("healthz", c.HealthzBindAddress, *c.HealthzPort, health), plain("read-only port", c.Address, c.ReadOnlyPort, handler))
}
