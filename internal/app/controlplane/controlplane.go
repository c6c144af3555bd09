// SPDX-License-Identifier: Apache-2.0

// Package controlplane puts an API server together from its options: store,
// keys, authentication, authorization, admission, kinds. The verbs apiserver,
// server and up run it; it is the one place that knows all stations.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/rest"

	"kaji/internal/api"
	"kaji/internal/api/catalog"
	"kaji/internal/api/metrics"
	"kaji/internal/apiserver"
	"kaji/internal/apiserver/admission/defaulttolerationseconds"
	"kaji/internal/apiserver/authz/rbac/bootstrap"
	"kaji/internal/apiserver/encryption"
	"kaji/internal/apiserver/flow"
	"kaji/internal/app/backup"
	"kaji/internal/app/kubeconfig"
	"kaji/internal/client/direct"
	"kaji/internal/featuregate"
	"kaji/internal/lifecycle"
	"kaji/internal/pki"
	"kaji/internal/store"
	"kaji/internal/store/etcd"
	"kaji/internal/store/pebble"
)

// Plane is an API server with everything around it.
type Plane struct {
	Options *Options
	Keys    *Keys
	Server  *apiserver.Server

	features featuregate.Gates
	log      *slog.Logger
	store    store.Store
	listener net.Listener
	trust    *trust
	sealer   *encryption.Sealer // nil without encryption at rest
	ready    chan struct{}
}

// New opens the store, reads or makes the keys and listens; nothing is served
// before Run. After an error nothing is left open.
func New(ctx context.Context, o *Options, log *slog.Logger) (*Plane, error) {
	features, err := featuregate.Parse(o.FeatureGates)
	if err != nil {
		return nil, fmt.Errorf("--feature-gates: %w", err)
	}
	p := &Plane{Options: o, features: features, log: log, ready: make(chan struct{})}
	err = atOnce(
		func() (err error) {
			if p.Keys, err = loadKeys(o); err != nil {
				err = fmt.Errorf("keys and certificates: %w", err)
			}
			return
		},
		func() (err error) { p.store, err = openStore(ctx, o, log); return },
	)
	if err != nil {
		if p.store != nil {
			err = errors.Join(err, p.store.Close())
		}
		return nil, err
	}
	if err := p.acquainted(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if err := p.assemble(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func openStore(ctx context.Context, o *Options, log *slog.Logger) (store.Store, error) {
	if len(o.Store.EtcdServers) > 0 {
		s, err := etcd.Open(ctx, etcd.Config{Endpoints: o.Store.EtcdServers, CAFile: o.Store.EtcdCAFile, CertFile: o.Store.EtcdCertFile, KeyFile: o.Store.EtcdKeyFile, Logger: log})
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		return s, nil
	}
	s, err := pebble.Open(pebble.Config{Dir: filepath.Join(o.DataDir, "store"), Logger: log})
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return s, nil
}

func (p *Plane) assemble(ctx context.Context) error {
	o := p.Options
	ranges, err := o.ServiceRanges()
	if err != nil {
		return err
	}
	ports, err := o.NodePorts()
	if err != nil {
		return err
	}
	serving, err := serverTLS(o, p.Keys)
	if err != nil {
		return err
	}
	kubelets, err := p.Keys.kubeletTLS(o)
	if err != nil {
		return err
	}
	all := catalog.All()
	if p.PodGroups() {
		all = catalog.WithGroups(all)
	}
	if p.features.Enabled("CSIVolumeHealth") {
		all = catalog.WithVolumeHealth(all)
	}
	if o.ServeMetrics {
		all = append(all, metrics.Kinds()...)
	}
	kinds, err := served(all, o.RuntimeConfig)
	if err != nil {
		return err
	}
	if p.trust, err = newTrust(ctx, o, p.Keys, p.object, p.log); err != nil {
		return err
	}
	recorder, err := newAudit(&o.Audit)
	if err != nil {
		return err
	}
	address := net.JoinHostPort(o.Serving.BindAddress.String(), strconv.Itoa(o.Serving.SecurePort))
	if p.listener, err = net.Listen("tcp", address); err != nil {
		return fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	configurations, err := admissionConfigurations(o.Admission.ConfigFile)
	if err != nil {
		return err
	}
	cfg := apiserver.Config{
		Store: p.store, Kinds: kinds, Logger: p.log,
		Listener:          p.listener,
		TLS:               serving,
		Authenticator:     p.trust.authenticator,
		Authorizer:        p.trust,
		Audit:             recorder,
		Flow:              &flow.Limits{ReadOnly: o.Limits.MaxRequestsInflight, Mutating: o.Limits.MaxMutatingRequestsInflight, Fair: o.Limits.PriorityAndFairness},
		Impersonate:       p.trust.impersonate(),
		Escalation:        p.trust.guard,
		Collectors:        append(p.trust.collectors, p.features),
		Virtual:           p.trust.reviews(),
		Tokens:            p.trust.issuer,
		ServiceRanges:     ranges,
		Advertise:         p.advertise(),
		Identity:          serverID(),
		NodePorts:         ports,
		RouteToEndpoints:  o.EnableAggregatorRouting,
		KubeletTLS:        kubelets,
		FrontProxy:        p.Keys.FrontProxy.get,
		EnabledAdmission:  o.Admission.Enable,
		DisabledAdmission: o.Admission.Disable,

		AdmissionConfiguration: configurations,
		TolerationSeconds: defaulttolerationseconds.Config{
			NotReady: &o.Admission.NotReadyTolerationSeconds, Unreachable: &o.Admission.UnreachableTolerationSeconds,
		},

		KubeletAddressTypes: o.AddressTypes(),
		Routes:              p.routes(),
		RequestTimeout:      o.Limits.RequestTimeout,
		MaxStreams:          o.Serving.HTTP2MaxStreams,
		Profiling:           o.Profiling,
	}
	if err := p.encrypt(ctx, &cfg); err != nil {
		return err
	}
	if p.Server, err = apiserver.New(cfg); err != nil {
		return err
	}
	return p.trust.attach(p.Server)
}

// object reads the present state of an object of the core group.
func (p *Plane) object(ctx context.Context, resource, namespace, name string) (metav1.Object, error) {
	served := p.Server.Kinds().Resource(corev1.SchemeGroupVersion.WithResource(resource))
	if served == nil {
		return nil, apierrors.NewNotFound(corev1.Resource(resource), name)
	}
	entry, ok, err := p.Server.Cache().Get(ctx, served.Kind, namespace, name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource(resource), name)
	}
	return entry.Object, nil
}

// served applies --runtime-config to the catalog.
func served(all []*api.Kind, config map[string]string) ([]*api.Kind, error) {
	on := func(gv schema.GroupVersion, optIn bool) bool {
		name := gv.String()
		if gv.Group == "" {
			name = "api/" + gv.Version
		}
		for _, key := range []string{name, gv.Group + "/" + gv.Version} {
			if v, ok := config[key]; ok {
				return v != "false"
			}
		}
		if optIn {
			return config["api/legacy"] == "true" || config["api/all"] == "true" || config["api/beta"] == "true" && strings.Contains(gv.Version, "beta")
		}
		return config["api/all"] != "false" || gv.Group == ""
	}
	for key, value := range config {
		if _, err := strconv.ParseBool(value); value != "" && err != nil {
			return nil, fmt.Errorf("--runtime-config: %s=%s: want true or false", key, value)
		}
	}
	var out []*api.Kind
	for _, kind := range all {
		var versions []api.Version
		for _, v := range kind.Versions {
			if on(v.GroupVersion, v.OptIn) {
				versions = append(versions, v)
			}
		}
		if len(versions) == 0 {
			continue
		}
		if len(versions) < len(kind.Versions) && kind.Prefix != "" && !contains(versions, kind.Storage) {
			// Objects are stored in a version that is not served: it stays
			// known to the machine.
			versions = append(versions, *kind.StoredVersion())
		}
		changed := *kind
		changed.Versions = versions
		out = append(out, &changed)
	}
	return out, nil
}

func contains(versions []api.Version, gv schema.GroupVersion) bool {
	for _, v := range versions {
		if v.GroupVersion == gv {
			return true
		}
	}
	return false
}

// routes serves paths that are no resources.
func (p *Plane) routes() map[string]http.Handler {
	routes := p.trust.routes(p.Options, p.advertise().String())
	routes[backup.Path] = backup.Serve(p.store, p.log)
	return routes
}

// Run serves until ctx ends and closes the store afterwards.
func (p *Plane) Run(ctx context.Context) error {
	group := lifecycle.New(ctx, p.log)
	group.Go("apiserver", p.Server.Run)
	p.trust.run(group, direct.New(p.Server.Self(), nil))
	group.Go("bootstrap policy", func(ctx context.Context) error {
		if err := p.bootstrap(ctx); err != nil {
			return err
		}
		close(p.ready)
		p.keepPublished(ctx, direct.New(p.Server.Self(), nil))
		return nil
	})
	err := group.Wait()
	p.trust.close()
	p.closeSealer()
	return errors.Join(err, p.store.Close())
}

// Trust returns who the server recognises and what it allows them, for other
// servers of the cluster in this process.
func (p *Plane) Trust() (authenticator.Request, authorizer.UnconditionalAuthorizer) {
	return p.trust.authenticator, p.trust
}

// Close releases a Plane that was never run.
func (p *Plane) Close() error {
	if p.trust != nil {
		p.trust.close()
	}
	p.closeSealer()
	var err error
	if p.listener != nil {
		err = p.listener.Close()
	}
	return errors.Join(err, p.store.Close())
}

func (p *Plane) bootstrap(ctx context.Context) error {
	select {
	case <-p.Server.Booted():
	case <-ctx.Done():
		return nil
	}
	self := direct.New(p.Server.Self(), nil)
	if err := p.trust.legacy.track(ctx, self); err != nil && ctx.Err() == nil {
		return err
	}
	if err := p.publish(ctx, self); err != nil && ctx.Err() == nil {
		return err
	}
	if !p.trust.usesRBAC() {
		return nil
	}
	ensure := bootstrap.Ensure
	if p.PodGroups() {
		ensure = bootstrap.EnsureWithGroups
	}
	if err := ensure(ctx, self); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// PodGroups says whether groups of pods are there (GenericWorkload).
func (p *Plane) PodGroups() bool {
	return p.features.Enabled("GenericWorkload")
}

// Ready is closed once everything that every cluster has exists.
func (p *Plane) Ready() <-chan struct{} { return p.ready }

// Address is where clients on this machine reach the server.
func (p *Plane) Address() string {
	_, port, _ := net.SplitHostPort(p.listener.Addr().String())
	host := "127.0.0.1"
	if ip := p.Options.Serving.BindAddress; ip != nil && !ip.IsUnspecified() {
		host = ip.String()
	}
	return "https://" + net.JoinHostPort(host, port)
}

// Advertised is where the other members of the cluster reach the server.
func (p *Plane) Advertised() string { return "https://" + p.advertise().String() }

// advertise is where the members of the cluster reach the server.
func (p *Plane) advertise() netip.AddrPort {
	host := p.Options.Serving.AdvertiseAddress
	if host == nil {
		if all := hostAddresses(); len(all) > 0 {
			host = all[0]
		} else {
			host = net.IPv4(127, 0, 0, 1)
		}
	}
	addr, _ := netip.AddrFromSlice(host)
	bound, _ := netip.ParseAddrPort(p.listener.Addr().String())
	return netip.AddrPortFrom(addr.Unmap(), bound.Port())
}

// Client returns an in-process client of a user, with a REST configuration for
// libraries that bring their own client.
func (p *Plane) Client(name string, groups []string, agent string) (*direct.Client, error) {
	who := &user.DefaultInfo{Name: name, Groups: append(groups, user.AllAuthenticated)}
	config, err := p.RESTConfig(name, groups)
	if err != nil {
		return nil, err
	}
	return direct.New(p.Server.Direct(who, agent), config), nil
}

// RESTConfig returns a client configuration with a certificate of a user.
func (p *Plane) RESTConfig(name string, groups []string) (*rest.Config, error) {
	pair, err := p.Keys.CA.Issue(pki.Leaf{CommonName: name, Organizations: groups, Client: true})
	if err != nil {
		return nil, err
	}
	return &rest.Config{Host: p.Address(), TLSClientConfig: rest.TLSClientConfig{CAData: p.Keys.CA.Cert, CertData: pair.Cert, KeyData: pair.Key}}, nil
}

// WriteAdminKubeconfig writes the administrator's kubeconfig. It leads to the
// address at, or to this machine's own.
func (p *Plane) WriteAdminKubeconfig(path, context string, at netip.Addr) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	server := p.Address()
	if at.IsValid() {
		server = "https://" + netip.AddrPortFrom(at, p.advertise().Port()).String()
	}
	return kubeconfig.Write(path, kubeconfig.New(context, server, p.Keys.CA.Cert, p.Keys.Admin))
}
