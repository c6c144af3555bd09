// SPDX-License-Identifier: Apache-2.0

// Package podcert gets pods the certificates that their volumes project
// (KEP-4317): it makes a key, asks a signer by a PodCertificateRequest, keeps
// what was issued, and asks again when the signer says that it is time.
//
// The kubelet's driver of projected volumes calls it whenever it writes a
// volume; it never writes files itself. Nothing outlives the process: after a
// restart every pod gets new certificates.
package podcert

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"kaji/internal/client"
)

// Defaults and bounds in time.
const (
	// patience is how long a pod without a certificate waits in Get.
	patience = 3 * time.Second
	// again is when to look at a renewal that was asked for, or to ask once more.
	again = 10 * time.Second
	// overdue after the begin of the renewal an event tells of it.
	overdue = 10 * time.Minute
	// jitter spreads renewals, so that not all pods ask at once.
	jitter = 5 * time.Minute
)

// Config is what a Manager needs.
type Config struct {
	Client   client.Interface
	NodeName string
	// NodeUID returns the UID of the node's object.
	NodeUID  func() (types.UID, error)
	Recorder record.EventRecorder
	// Patience is how long Get waits for a first certificate; 3 s when zero.
	Patience time.Duration
	// Now is the time; time.Now when nil.
	Now func() time.Time
}

// Manager keeps the certificates of pods. It is safe for concurrent use, for
// one pod by one caller at a time.
type Manager struct {
	cfg      Config
	requests client.Typed[*certificatesv1.PodCertificateRequest]
	accounts client.Typed[*corev1.ServiceAccount]

	mu   sync.Mutex // guards pods
	pods map[types.UID]map[source]*credential
}

// source is one projection of a pod.
type source struct {
	volume string
	index  int
}

// credential is what is known for one projection.
type credential struct {
	key, chain     []byte // what is good now; empty before the first
	renewAt        time.Time
	notAfter       time.Time
	toldOverdue    bool
	toldExpired    bool
	request        string // asked for and not answered yet
	requestKey     []byte
	requestFailing bool
	refused        error // for good
}

// New returns a Manager.
func New(cfg Config) *Manager {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Patience == 0 {
		cfg.Patience = patience
	}
	return &Manager{
		cfg: cfg, pods: map[types.UID]map[source]*credential{},
		requests: client.For[*certificatesv1.PodCertificateRequest](cfg.Client),
		accounts: client.For[*corev1.ServiceAccount](cfg.Client),
	}
}

// Get returns key and certificate chain, both PEM, of a projection: those kept,
// or new ones. Without any it waits a little for the signer; the error says why
// there are none.
func (m *Manager) Get(ctx context.Context, pod *corev1.Pod, volume string, index int, spec *corev1.PodCertificateProjection) (key, chain []byte, err error) {
	c := m.of(pod.UID, source{volume, index})
	if c.refused != nil {
		return nil, nil, c.refused
	}
	if c.request == "" && (c.chain == nil || !m.cfg.Now().Before(c.renewAt)) {
		err = m.ask(ctx, pod, spec, c)
	}
	if err == nil && c.request != "" {
		err = m.look(ctx, pod, c)
	}
	c.requestFailing = err != nil
	m.warn(pod, c)
	switch {
	case c.refused != nil:
		return nil, nil, c.refused
	case c.chain != nil:
		return c.key, c.chain, nil // an error of a renewal does not take away what there is
	case err != nil:
		return nil, nil, err
	}
	return nil, nil, errors.New("credential bundle is not issued yet")
}

func (m *Manager) of(uid types.UID, s source) *credential {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pods[uid] == nil {
		m.pods[uid] = map[source]*credential{}
	}
	if m.pods[uid][s] == nil {
		m.pods[uid][s] = &credential{}
	}
	return m.pods[uid][s]
}

// RefreshAt is when to call Get again for a pod that runs; zero for never.
func (m *Manager) RefreshAt(uid types.UID) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	var first time.Time
	for _, c := range m.pods[uid] {
		at := c.renewAt
		switch {
		case c.refused != nil || c.chain == nil:
			continue
		case c.request != "" || c.requestFailing:
			at = m.cfg.Now().Add(again)
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// Forget drops what is known of a pod.
func (m *Manager) Forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pods, uid)
}

// ask makes a key and a request for it.
func (m *Manager) ask(ctx context.Context, pod *corev1.Pod, spec *corev1.PodCertificateProjection, c *credential) error {
	account, err := m.accounts.Get(ctx, pod.Namespace, pod.Spec.ServiceAccountName)
	if err != nil {
		return fmt.Errorf("while fetching service account: %w", err)
	}
	node, err := m.cfg.NodeUID()
	if err != nil {
		return fmt.Errorf("while getting node object from local cache: %w", err)
	}
	key, proof, err := generate(spec.KeyType)
	if err != nil {
		return fmt.Errorf("while generating keypair: %w", err)
	}
	made, err := m.requests.Create(ctx, &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, GenerateName: "req-",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}},
		},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: spec.SignerName, PodName: pod.Name, PodUID: pod.UID,
			ServiceAccountName: pod.Spec.ServiceAccountName, ServiceAccountUID: account.UID,
			NodeName: types.NodeName(m.cfg.NodeName), NodeUID: node,
			MaxExpirationSeconds: spec.MaxExpirationSeconds, StubPKCS10Request: proof,
			UnverifiedUserAnnotations: spec.UserAnnotations,
		},
	})
	if err != nil {
		return fmt.Errorf("while creating PodCertificateRequest: %w", err)
	}
	c.request, c.requestKey = made.Name, key
	return nil
}

// look sees what became of a request, and waits for it where the pod has no
// certificate yet.
func (m *Manager) look(ctx context.Context, pod *corev1.Pod, c *credential) error {
	// By list and watch: those a node may do at once, before the server has
	// found out that a request of this name is the node's own.
	only := metav1.ListOptions{FieldSelector: "metadata.name=" + c.request + ",spec.nodeName=" + m.cfg.NodeName}
	found, err := m.requests.List(ctx, pod.Namespace, only)
	switch {
	case err != nil:
		return fmt.Errorf("while getting PodCertificateRequest %q: %w", pod.Namespace+"/"+c.request, err)
	case len(found) == 0:
		gone := c.request
		c.request, c.requestKey = "", nil
		return fmt.Errorf("PodCertificateRequest %q appears to have been deleted", pod.Namespace+"/"+gone)
	case m.settle(pod, c, found[0]) || c.chain != nil:
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Patience)
	defer cancel()
	only.ResourceVersion = found[0].ResourceVersion
	w, err := m.cfg.Client.Watch(ctx, m.requests.Resource(pod.Namespace), only)
	if err != nil {
		return fmt.Errorf("while watching PodCertificateRequest %q: %w", pod.Namespace+"/"+c.request, err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.ResultChan():
			if !ok {
				return nil
			}
			if r, is := e.Object.(*certificatesv1.PodCertificateRequest); is && m.settle(pod, c, r) {
				return nil
			}
		}
	}
}

// settle takes over what a signer said; false when it has said nothing yet.
func (m *Manager) settle(pod *corev1.Pod, c *credential, r *certificatesv1.PodCertificateRequest) bool {
	for _, cond := range r.Status.Conditions {
		switch cond.Type {
		case certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed:
			what := "failed"
			if cond.Type == certificatesv1.PodCertificateRequestConditionTypeDenied {
				what = "denied"
			}
			*c = credential{refused: fmt.Errorf("PodCertificateRequest was permanently %s: reason=%q message=%q", what, cond.Reason, cond.Message)}
			if what == "denied" {
				what = "was denied"
			}
			m.cfg.Recorder.Eventf(reference(pod), corev1.EventTypeWarning, cond.Type, "PodCertificateRequest %s %s, reason=%q, message=%q",
				r.Namespace+"/"+r.Name, what, cond.Reason, cond.Message)
			return true
		case certificatesv1.PodCertificateRequestConditionTypeIssued:
			next := credential{key: c.requestKey, chain: clean(r.Status.CertificateChain)}
			if r.Status.BeginRefreshAt != nil {
				next.renewAt = r.Status.BeginRefreshAt.Add(rand.N(jitter)) //nolint:gosec // spreads, guards nothing
			}
			if r.Status.NotAfter != nil {
				next.notAfter = r.Status.NotAfter.Time
			}
			*c = next
			return true
		}
	}
	return false
}

// warn tells once of a renewal that is late and of a certificate that ended.
func (m *Manager) warn(pod *corev1.Pod, c *credential) {
	if c.chain == nil {
		return
	}
	now := m.cfg.Now()
	if now.After(c.renewAt.Add(overdue)) && !c.toldOverdue {
		c.toldOverdue = true
		m.cfg.Recorder.Event(reference(pod), corev1.EventTypeWarning, "CertificateOverdueForRefresh", "PodCertificate refresh overdue")
	}
	if now.After(c.notAfter) && !c.toldExpired {
		c.toldExpired = true
		m.cfg.Recorder.Event(reference(pod), corev1.EventTypeWarning, "CertificateExpired", "PodCertificate expired")
	}
}

func reference(pod *corev1.Pod) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion}
}
