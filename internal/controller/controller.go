// SPDX-License-Identifier: Apache-2.0

// Package controller runs the controllers, each a child of this package, each
// with its own identity at the API server. It takes the place of
// kube-controller-manager; package app runs it. It decides nothing itself.
package controller

import (
	"context"
	"crypto"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"kaji/internal/client"
	"kaji/internal/cloud"
	"kaji/internal/controller/attachdetach"
	"kaji/internal/controller/autoscaler"
	"kaji/internal/controller/bootstraptoken"
	"kaji/internal/controller/certificates"
	"kaji/internal/controller/cloudnode"
	"kaji/internal/controller/cloudroute"
	"kaji/internal/controller/cloudservice"
	"kaji/internal/controller/clusterroleaggregation"
	"kaji/internal/controller/cronjob"
	"kaji/internal/controller/daemonset"
	"kaji/internal/controller/deployment"
	"kaji/internal/controller/devicetainteviction"
	"kaji/internal/controller/disruption"
	"kaji/internal/controller/endpoints"
	"kaji/internal/controller/endpointslice"
	"kaji/internal/controller/endpointslicemirroring"
	"kaji/internal/controller/ephemeralvolume"
	"kaji/internal/controller/garbagecollector"
	"kaji/internal/controller/job"
	"kaji/internal/controller/legacytoken"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/namespace"
	"kaji/internal/controller/nodeipam"
	"kaji/internal/controller/nodelifecycle"
	"kaji/internal/controller/nodettl"
	"kaji/internal/controller/podgc"
	"kaji/internal/controller/policystatus"
	"kaji/internal/controller/protection"
	"kaji/internal/controller/queue"
	"kaji/internal/controller/replicaset"
	"kaji/internal/controller/resourceclaim"
	"kaji/internal/controller/resourcequota"
	"kaji/internal/controller/rootca"
	"kaji/internal/controller/serviceaccount"
	"kaji/internal/controller/serviceaccounttoken"
	"kaji/internal/controller/servicecidr"
	"kaji/internal/controller/servicelb"
	"kaji/internal/controller/statefulset"
	"kaji/internal/controller/storageversionmigrator"
	"kaji/internal/controller/tainteviction"
	"kaji/internal/controller/trustbundle"
	"kaji/internal/controller/ttlafterfinished"
	"kaji/internal/controller/volumebinder"
	"kaji/internal/controller/volumeexpand"
	"kaji/internal/pki"
)

// Config says what the controllers work with.
type Config struct {
	// Client returns a client of a controller's own ServiceAccount in
	// kube-system; without a name, of the manager itself.
	Client func(account string) (client.Interface, error)
	// ClusterCIDRs are the pods' ranges, one a family; nodes get a part each.
	// Empty leaves that to others.
	ClusterCIDRs []netip.Prefix
	// NodeMaskIPv4 and NodeMaskIPv6 are the sizes of a node's part; 24 and 64
	// when zero.
	NodeMaskIPv4, NodeMaskIPv6 int
	// ServiceCIDRs are Services' addresses, which no node gets a part of.
	ServiceCIDRs []netip.Prefix
	// RootCA is the PEM bundle that pods trust the API server by.
	RootCA []byte
	// Signers are the authorities that sign certificate requests, each for the
	// signer it is named by; what has none is left to others.
	Signers map[string]*pki.CA
	// SigningDuration bounds the life of what is signed; a year when zero.
	SigningDuration time.Duration
	// TokenKey returns the key that signs the tokens of legacy Secrets; nil
	// leaves that to others.
	TokenKey func() (crypto.Signer, error)
	// LegacyTokenPeriod is how long a token that is kept in a Secret is not used
	// before it becomes invalid; a year when zero.
	LegacyTokenPeriod time.Duration
	// NoForceDetach keeps volumes attached to dead nodes that had them mounted.
	NoForceDetach bool
	// Nodes says how patient the controllers are with nodes; its Client and
	// Logger are set here.
	Nodes nodelifecycle.Config
	// Autoscaling are the autoscalers' settings; upstream's when nil.
	Autoscaling *autoscaler.Settings
	// EndpointsPerSlice is how many endpoints an EndpointSlice holds; a hundred
	// when zero.
	EndpointsPerSlice int
	// MirroredPerSubset is how many addresses of a subset of Endpoints are mirrored;
	// a thousand when zero.
	MirroredPerSubset int
	// EndpointsBatch, SliceBatch and MirrorBatch are how long changes wait for others,
	// before Endpoints, EndpointSlices and mirrors are written.
	EndpointsBatch, SliceBatch, MirrorBatch time.Duration
	// NoProvisioning leaves claims without a volume to who makes volumes by hand.
	NoProvisioning bool
	// HostPathRecycling and NFSRecycling say how volumes are emptied; upstream's way
	// when zero.
	HostPathRecycling, NFSRecycling volumebinder.Recycling
	// QuotaPeriod is how often all quotas are counted afresh; five minutes when zero.
	QuotaPeriod time.Duration
	// StartInterval passes between the starts of two controllers.
	StartInterval time.Duration
	// EndedPods is how many pods that ended are kept: 12,500 when zero, all when
	// negative.
	EndedPods int
	// LoadBalancer says which addresses Services of type LoadBalancer get; its
	// Client and Logger are set here. Nil leaves them to others.
	LoadBalancer *servicelb.Config
	// Cloud is where the machines come from; nil leaves them to others.
	Cloud cloud.Provider
	// CloudCluster is the cluster's name there.
	CloudCluster string
	// CloudRefresh and RoutePeriod are how often the cloud is asked about
	// addresses and routes; five minutes and ten seconds when zero.
	CloudRefresh, RoutePeriod time.Duration
	// Controllers selects what runs, by upstream's names: "*" is all that run
	// by default, "foo" runs foo, "-foo" does not. Empty is "*".
	Controllers []string
	// Workers are how many workers controllers have, by their queues' names, in
	// place of the controllers' own numbers.
	Workers map[string]int
	// Metrics counts what the controllers do; nil does not.
	Metrics *meter.Set
	Logger  *slog.Logger
}

// Controller is one controller. Run returns when ctx ends.
type Controller interface {
	Run(ctx context.Context) error
}

// off is a controller without what it needs.
type off struct{}

// Run implements Controller.
func (off) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// entry is one controller of the list: its name, its account, its constructor.
type entry struct {
	name, account string
	make          func(Config, client.Interface, *slog.Logger) (Controller, error)
}

// list is all controllers, by upstream's names.
var list = []entry{
	{"node-ipam-controller", "node-controller", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		if len(c.ClusterCIDRs) == 0 {
			return off{}, nil
		}
		return nodeipam.New(nodeipam.Config{Client: api, CIDRs: c.ClusterCIDRs, Services: c.ServiceCIDRs, MaskIPv4: c.NodeMaskIPv4, MaskIPv6: c.NodeMaskIPv6, Logger: log})
	}},
	{"node-lifecycle-controller", "node-controller", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		nodes := c.Nodes
		nodes.Client, nodes.Logger = api, log
		return nodelifecycle.New(nodes), nil
	}},
	{"serviceaccount-controller", "service-account-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return serviceaccount.New(api, log), nil
	}},
	{"root-ca-certificate-publisher-controller", "root-ca-cert-publisher", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return rootca.New(api, c.RootCA, log), nil
	}},
	{"replicaset-controller", "replicaset-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return replicaset.New(api, log), nil
	}},
	{"replicationcontroller-controller", "replication-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return replicaset.NewReplicationController(api, log), nil
	}},
	{"daemonset-controller", "daemon-set-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return daemonset.New(api, log), nil
	}},
	{"horizontal-pod-autoscaler-controller", "horizontal-pod-autoscaler", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return autoscaler.New(api, c.autoscaling(), log), nil
	}},
	{"statefulset-controller", "statefulset-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return statefulset.New(api, log), nil
	}},
	{"deployment-controller", "deployment-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return deployment.New(api, log), nil
	}},
	{"job-controller", "job-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return job.New(api, log), nil
	}},
	{"cronjob-controller", "cronjob-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return cronjob.New(api, log), nil
	}},
	{"ttl-after-finished-controller", "ttl-after-finished-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return ttlafterfinished.New(api, log), nil
	}},
	{"pod-garbage-collector-controller", "pod-garbage-collector", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return podgc.New(podgc.Config{Client: api, Threshold: c.EndedPods, Logger: log}), nil
	}},
	{"taint-eviction-controller", "node-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return tainteviction.New(api, log), nil
	}},
	{"device-taint-eviction-controller", "device-taint-eviction-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return devicetainteviction.New(devicetainteviction.Config{Client: api, Logger: log}), nil
	}},
	{"disruption-controller", "disruption-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return disruption.New(api, log), nil
	}},
	{"ttl-controller", "ttl-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return nodettl.New(api, log), nil
	}},
	{"resourceclaim-controller", "resource-claim-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return resourceclaim.New(api, log), nil
	}},
	{"resourcequota-controller", "resourcequota-controller", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return resourcequota.New(resourcequota.Config{Client: api, Period: c.QuotaPeriod, Logger: log}), nil
	}},
	{"namespace-controller", "namespace-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return namespace.New(namespace.Config{Client: api, Logger: log}), nil
	}},
	{"garbage-collector-controller", "generic-garbage-collector", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return garbagecollector.New(garbagecollector.Config{Client: api, Logger: log}), nil
	}},
	{"validatingadmissionpolicy-status-controller", "validatingadmissionpolicy-status-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return policystatus.New(api, log), nil
	}},
	{"storage-version-migrator-controller", "storage-version-migrator-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return storageversionmigrator.New(api, log), nil
	}},
	{"endpointslice-controller", "endpointslice-controller", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return endpointslice.New(endpointslice.Config{Client: api, Max: c.EndpointsPerSlice, Batch: c.SliceBatch, Logger: log}), nil
	}},
	{"endpointslice-mirroring-controller", "endpointslicemirroring-controller", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return endpointslicemirroring.New(endpointslicemirroring.Config{Client: api, Max: c.MirroredPerSubset, Batch: c.MirrorBatch, Logger: log}), nil
	}},
	{"endpoints-controller", "endpoint-controller", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return endpoints.New(endpoints.Config{Client: api, Batch: c.EndpointsBatch, Logger: log}), nil
	}},
	{"clusterrole-aggregation-controller", "clusterrole-aggregation-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return clusterroleaggregation.New(api, log), nil
	}},
	{"persistentvolume-binder-controller", "persistent-volume-binder", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return volumebinder.New(volumebinder.Config{Client: api, NoProvisioning: c.NoProvisioning, HostPath: c.HostPathRecycling, NFS: c.NFSRecycling, Logger: log}), nil
	}},
	{"persistentvolumeclaim-protection-controller", "pvc-protection-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return protection.NewClaims(api, log), nil
	}},
	{"persistentvolume-protection-controller", "pv-protection-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return protection.NewVolumes(api, log), nil
	}},
	{"volumeattributesclass-protection-controller", "volumeattributesclass-protection-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return protection.NewClasses(api, log), nil
	}},
	{"podgroup-protection-controller", "podgroup-protection-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return protection.NewGroups(api, log), nil
	}},
	{"ephemeral-volume-controller", "ephemeral-volume-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return ephemeralvolume.New(api, log), nil
	}},
	{"persistentvolume-expander-controller", "expand-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return volumeexpand.New(api, log), nil
	}},
	{"persistentvolume-attach-detach-controller", "attachdetach-controller", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return attachdetach.New(attachdetach.Config{Client: api, NoForce: c.NoForceDetach, Logger: log}), nil
	}},
	{"certificatesigningrequest-approving-controller", "certificate-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return certificates.NewApprover(api, log), nil
	}},
	{"certificatesigningrequest-signing-controller", "certificate-controller", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return certificates.NewSigner(certificates.SignerConfig{Client: api, Authorities: c.Signers, Life: c.SigningDuration, Logger: log}), nil
	}},
	{"certificatesigningrequest-cleaner-controller", "certificate-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return certificates.NewCleaner(api, log), nil
	}},
	{"service-lb-controller", "service-controller", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return serviceLoadBalancers(c, api, log), nil
	}},
	{"podcertificaterequest-cleaner-controller", "podcertificaterequestcleaner", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return certificates.NewPodRequestCleaner(api, log), nil
	}},
	{"kube-apiserver-serving-clustertrustbundle-publisher-controller", "kube-apiserver-serving-clustertrustbundle-publisher", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		if len(c.RootCA) == 0 {
			return off{}, nil
		}
		return trustbundle.New(api, c.RootCA, log), nil
	}},
	{"bootstrap-signer-controller", "bootstrap-signer", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return bootstraptoken.NewSigner(api, log), nil
	}},
	{"token-cleaner-controller", "token-cleaner", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return bootstraptoken.NewCleaner(api, log), nil
	}},
	{"legacy-serviceaccount-token-cleaner-controller", "legacy-service-account-token-cleaner", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return legacytoken.New(api, c.LegacyTokenPeriod, log), nil
	}},
	{"service-cidr-controller", "service-cidrs-controller", func(_ Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return servicecidr.New(api, log), nil
	}},
	{"serviceaccount-token-controller", "", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		return serviceAccountTokens(c, api, log), nil
	}},
}

// cloudList is the controllers that stand on a cloud, besides that of load
// balancers. Without one they are left to others.
var cloudList = []entry{
	{"cloud-node-controller", "node-controller", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		if c.Cloud == nil || c.Cloud.Machines() == nil {
			return off{}, nil
		}
		return cloudnode.NewInitializer(cloudnode.Config{Client: api, Cloud: c.Cloud, Refresh: c.CloudRefresh, Logger: log}), nil
	}},
	{"cloud-node-lifecycle-controller", "node-controller", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		if c.Cloud == nil || c.Cloud.Machines() == nil {
			return off{}, nil
		}
		return cloudnode.NewLifecycle(cloudnode.Config{Client: api, Cloud: c.Cloud, Period: c.Nodes.MonitorPeriod, Logger: log}), nil
	}},
	{"node-route-controller", "route-controller", func(c Config, api client.Interface, log *slog.Logger) (Controller, error) {
		if c.Cloud == nil || c.Cloud.Routes() == nil || len(c.ClusterCIDRs) == 0 {
			return off{}, nil
		}
		return cloudroute.New(cloudroute.Config{Client: api, Routes: c.Cloud.Routes(), Cluster: c.CloudCluster, CIDRs: c.ClusterCIDRs, Period: c.RoutePeriod, Logger: log}), nil
	}},
}

// counted are the controllers whose running is told by the metrics, with the
// names they have there.
var counted = map[string]string{"node-ipam-controller": "nodeipam", "cloud-node-controller": "cloud-node", "cloud-node-lifecycle-controller": "cloud-node-lifecycle",
	"node-route-controller": "route", "service-lb-controller": "service"}

// Manager runs the controllers. Create it with New.
type Manager struct {
	name    string // upstream's
	clients []client.Interface
	running []named
	workers map[string]int
	metrics *meter.Set
	between time.Duration // starts of controllers
}

type named struct {
	name string
	Controller
}

// New makes all controllers; nothing runs before Run.
func New(c Config) (*Manager, error) {
	return assemble("kube-controller-manager", c, append(slices.Clip(list), cloudList...))
}

// NewCloud makes the controllers that stand on a cloud, and no others.
func NewCloud(c Config) (*Manager, error) {
	of := slices.Clip(cloudList)
	for _, e := range list {
		if e.name == "service-lb-controller" {
			of = append(of, e)
		}
	}
	return assemble("cloud-controller-manager", c, of)
}

func assemble(name string, c Config, of []entry) (*Manager, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	chosen, err := newSelection(c.Controllers)
	if err != nil {
		return nil, err
	}
	m := &Manager{name: name, between: c.StartInterval, workers: c.Workers, metrics: c.Metrics}
	for _, e := range of {
		if !chosen.has(e.name) {
			continue
		}
		api, err := c.Client(e.account)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		made, err := e.make(c, api, c.Logger.With("controller", e.name))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		m.clients, m.running = append(m.clients, api), append(m.running, named{e.name, made})
	}
	return m, nil
}

// Names are the controllers' names, without those that lack what they need.
func (m *Manager) Names() (names []string) {
	for _, c := range m.running {
		if _, idle := c.Controller.(off); !idle {
			names = append(names, c.name)
		}
	}
	return names
}

// Run runs all controllers until ctx ends, or one fails.
func (m *Manager) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(meter.With(queue.WithWorkers(ctx, m.workers), m.metrics))
	defer cancel(nil)
	for _, c := range m.clients {
		c.Start(ctx)
	}
	var group sync.WaitGroup
	for i, c := range m.running {
		if i > 0 && m.between > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(m.between):
			}
		}
		group.Go(func() {
			if metric := counted[c.name]; metric != "" && c.Controller != (off{}) {
				m.metrics.Running(metric, m.name, true)
				defer m.metrics.Running(metric, m.name, false)
			}
			if err := c.Run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", c.name, err))
			}
		})
	}
	group.Wait()
	if cause := context.Cause(ctx); cause != nil && cause != ctx.Err() {
		return cause
	}
	return nil
}

func (c *Config) autoscaling() autoscaler.Settings {
	if c.Autoscaling != nil {
		return *c.Autoscaling
	}
	return autoscaler.Defaults()
}

// serviceAccountTokens returns the controller of tokens in Secrets, if there is
// a key to sign them.
func serviceAccountTokens(c Config, api client.Interface, log *slog.Logger) Controller {
	if c.TokenKey == nil {
		return off{}
	}
	return serviceaccounttoken.New(serviceaccounttoken.Config{Client: api, Key: c.TokenKey, RootCA: c.RootCA, Logger: log})
}

// serviceLoadBalancers returns the controller of load balancers' addresses, if
// there are any to give.
func serviceLoadBalancers(c Config, api client.Interface, log *slog.Logger) Controller {
	if c.Cloud != nil && c.Cloud.Balancers() != nil {
		return cloudservice.New(cloudservice.Config{Client: api, Balancers: c.Cloud.Balancers(), Cluster: c.CloudCluster, Logger: log})
	}
	if c.LoadBalancer == nil {
		return off{}
	}
	config := *c.LoadBalancer
	config.Client, config.Logger = api, log
	return servicelb.New(config)
}
