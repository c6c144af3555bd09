// SPDX-License-Identifier: Apache-2.0

package podcert_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/record"

	"kaji/internal/client"
	"kaji/internal/kubelet/podcert"
	"kaji/kajitest"
)

const signerName = "example.com/signer"

// stand is a server, a pod's projection and a manager with a clock.
type stand struct {
	t        *testing.T
	api      client.Interface
	requests client.Typed[*certificatesv1.PodCertificateRequest]
	pod      *corev1.Pod
	spec     *corev1.PodCertificateProjection
	manager  *podcert.Manager
	events   *record.FakeRecorder
	ahead    atomic.Int64 // of the clock
}

func begin(t *testing.T, patience time.Duration) *stand {
	t.Helper()
	s := &stand{t: t, api: kajitest.Start(t).Client(), events: record.NewFakeRecorder(10)}
	s.requests = client.For[*certificatesv1.PodCertificateRequest](s.api)
	if _, err := client.For[*corev1.ServiceAccount](s.api).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "account", Namespace: "default"}}); err != nil {
		t.Fatal(err)
	}
	s.pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod", Namespace: "default", UID: "pod-uid"}, Spec: corev1.PodSpec{ServiceAccountName: "account"}}
	s.spec = &corev1.PodCertificateProjection{SignerName: signerName, KeyType: "ED25519", UserAnnotations: map[string]string{"example.com/a": "b"}}
	s.manager = podcert.New(podcert.Config{Client: s.api, NodeName: "node", Recorder: s.events, Patience: patience,
		NodeUID: func() (types.UID, error) { return "node-uid", nil },
		Now:     func() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }})
	return s
}

func (s *stand) get() (key, chain []byte, err error) {
	return s.manager.Get(s.t.Context(), s.pod, "tls", 0, s.spec)
}

// signAs answers every request that comes with a condition, until the test ends.
func (s *stand) signAs(kind string) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	w, err := s.api.Watch(ctx, s.requests.Resource(""), metav1.ListOptions{})
	if err != nil {
		cancel()
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			if e.Type == watch.Added {
				s.sign(ctx, e.Object.(*certificatesv1.PodCertificateRequest), kind)
			}
		}
	}()
	s.t.Cleanup(func() { cancel(); w.Stop(); <-done })
}

func (s *stand) sign(ctx context.Context, r *certificatesv1.PodCertificateRequest, kind string) {
	next := r.DeepCopy()
	next.Status.Conditions = []metav1.Condition{{Type: kind, Status: metav1.ConditionTrue, Reason: "Because", Message: "of it", LastTransitionTime: metav1.Now()}}
	if kind == certificatesv1.PodCertificateRequestConditionTypeIssued {
		chain, from, until, err := issue(r)
		if err != nil {
			s.t.Error(err)
			return
		}
		renew := metav1.NewTime(from.Add(30 * time.Minute))
		next.Status.CertificateChain = chain
		next.Status.NotBefore, next.Status.NotAfter, next.Status.BeginRefreshAt = &from, &until, &renew
	}
	if _, err := s.requests.UpdateStatus(ctx, next); err != nil && ctx.Err() == nil {
		s.t.Error(err)
	}
}

// A certificate is for the key that came with it, is kept until its renewal,
// and then replaced.
func TestIssued(t *testing.T) {
	s := begin(t, time.Minute)
	s.signAs(certificatesv1.PodCertificateRequestConditionTypeIssued)
	key, chain, err := s.get()
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(chain)
	if block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 {
		t.Fatalf("chain: %s", chain)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !owns(t, key, certificate) {
		t.Error("the certificate is for another key")
	}
	all, err := s.requests.List(t.Context(), "default", metav1.ListOptions{})
	if err != nil || len(all) != 1 {
		t.Fatalf("%d requests, %v", len(all), err)
	}
	r := all[0]
	if r.Spec.SignerName != signerName || r.Spec.PodUID != "pod-uid" || r.Spec.NodeUID != "node-uid" || r.Spec.NodeName != "node" ||
		r.Spec.UnverifiedUserAnnotations["example.com/a"] != "b" || len(r.OwnerReferences) != 1 || r.OwnerReferences[0].UID != "pod-uid" {
		t.Errorf("request: %+v", r)
	}
	if at := s.manager.RefreshAt("pod-uid"); at.Before(time.Now().Add(25*time.Minute)) || at.After(time.Now().Add(40*time.Minute)) {
		t.Errorf("renewal at %v", at)
	}
	if again, _, err := s.get(); err != nil || string(again) != string(key) {
		t.Errorf("another key before the renewal, %v", err)
	}
	s.ahead.Store(int64(36 * time.Minute)) // past the begin and its spread
	deadline := time.Now().Add(time.Minute)
	for {
		next, _, err := s.get()
		if err != nil {
			t.Fatal(err)
		}
		if string(next) != string(key) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("never renewed")
		}
	}
	s.manager.Forget("pod-uid")
	if at := s.manager.RefreshAt("pod-uid"); !at.IsZero() {
		t.Errorf("forgotten, and to be renewed at %v", at)
	}
}

// What a signer refuses is refused for good, and an event says so.
func TestRefused(t *testing.T) {
	for kind, want := range map[string]string{
		certificatesv1.PodCertificateRequestConditionTypeDenied: `PodCertificateRequest was permanently denied: reason="Because" message="of it"`,
		certificatesv1.PodCertificateRequestConditionTypeFailed: `PodCertificateRequest was permanently failed: reason="Because" message="of it"`,
	} {
		s := begin(t, time.Minute)
		s.signAs(kind)
		for range 2 {
			if _, _, err := s.get(); err == nil || err.Error() != want {
				t.Errorf("%s: %v", kind, err)
			}
		}
		if e := <-s.events.Events; !strings.HasPrefix(e, "Warning "+kind+" PodCertificateRequest default/req-") || !strings.HasSuffix(e, `reason="Because", message="of it"`) {
			t.Errorf("%s: %s", kind, e)
		}
		if all, err := s.requests.List(t.Context(), "default", metav1.ListOptions{}); err != nil || len(all) != 1 {
			t.Errorf("%s: %d requests, %v", kind, len(all), err)
		}
	}
}

// A pod whose signer says nothing gets an error, and one request; when somebody
// deletes that, another.
func TestSilentSigner(t *testing.T) {
	s := begin(t, time.Millisecond)
	count := func() []*certificatesv1.PodCertificateRequest {
		t.Helper()
		all, err := s.requests.List(t.Context(), "default", metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	for range 2 {
		if _, _, err := s.get(); err == nil || err.Error() != "credential bundle is not issued yet" {
			t.Errorf("got %v", err)
		}
	}
	first := count()
	if len(first) != 1 {
		t.Fatalf("%d requests", len(first))
	}
	if err := s.requests.Delete(t.Context(), "default", first[0].Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.get(); err == nil || !strings.HasSuffix(err.Error(), "appears to have been deleted") {
		t.Errorf("got %v", err)
	}
	if _, _, err := s.get(); err == nil {
		t.Error("a certificate from nowhere")
	}
	if next := count(); len(next) != 1 || next[0].Name == first[0].Name {
		t.Errorf("after the deletion: %d requests", len(next))
	}
}

// A signer that falls silent leaves the pod what it has, and events tell.
func TestLateRenewal(t *testing.T) {
	s := begin(t, time.Minute)
	s.signAs(certificatesv1.PodCertificateRequestConditionTypeIssued)
	if _, _, err := s.get(); err != nil {
		t.Fatal(err)
	}
	s.spec.KeyType = "unknown" // no request can be made any more
	s.ahead.Store(int64(2 * time.Hour))
	if _, _, err := s.get(); err != nil {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{"Warning CertificateOverdueForRefresh PodCertificate refresh overdue", "Warning CertificateExpired PodCertificate expired"} {
		if got := <-s.events.Events; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if at := s.manager.RefreshAt("pod-uid"); at.Before(time.Now().Add(2 * time.Hour)) {
		t.Errorf("tries again at %v", at)
	}
}
