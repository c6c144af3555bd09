// SPDX-License-Identifier: Apache-2.0

package resourcequota_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/apiserver"
	"kaji/internal/apiserver/admission/resourcequota"
	"kaji/internal/client"
	"kaji/kajitest"
)

// start starts a server whose namespace default has the quotas.
func start(t *testing.T, configuration string, quotas ...*corev1.ResourceQuota) *kajitest.Cluster {
	t.Helper()
	cluster := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) {
		c.AdmissionConfiguration = map[string][]byte{resourcequota.Name: []byte(configuration)}
	}))
	api := client.For[*corev1.ResourceQuota](cluster.Client())
	for _, q := range quotas {
		made, err := api.Create(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		counted := made.DeepCopy()
		counted.Status.Hard = q.Spec.Hard
		counted.Status.Used = corev1.ResourceList{}
		for name := range q.Spec.Hard {
			counted.Status.Used[name] = resource.MustParse("0")
		}
		if _, err := api.UpdateStatus(t.Context(), counted); err != nil {
			t.Fatal(err)
		}
	}
	return cluster
}

func limit(name string, hard map[corev1.ResourceName]string) *corev1.ResourceQuota {
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	q.Spec.Hard = list(hard)
	return q
}

func list(values map[corev1.ResourceName]string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for name, v := range values {
		l[name] = resource.MustParse(v)
	}
	return l
}

func pod(name string, requests, limits map[corev1.ResourceName]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: list(requests), Limits: list(limits)},
		}}},
	}
}

// used returns the charged values of a quota.
func used(t *testing.T, c *kajitest.Cluster, name string) map[corev1.ResourceName]string {
	t.Helper()
	q, err := client.For[*corev1.ResourceQuota](c.Client()).Get(t.Context(), "default", name)
	if err != nil {
		t.Fatal(err)
	}
	values := map[corev1.ResourceName]string{}
	for n, v := range q.Status.Used {
		values[n] = v.String()
	}
	return values
}

func wantUsed(t *testing.T, c *kajitest.Cluster, name string, want map[corev1.ResourceName]string) {
	t.Helper()
	if got := used(t, c, name); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("used of %s: got %v, want %v", name, got, want)
	}
}

func wantRefusal(t *testing.T, err error, want string) {
	t.Helper()
	if !apierrors.IsForbidden(err) || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want a refusal that ends in %q", err, want)
	}
}

func TestCompute(t *testing.T) {
	type m = map[corev1.ResourceName]string
	c := start(t, "", limit("q", m{"requests.cpu": "1", "limits.memory": "1Gi"}))
	pods, ctx := client.For[*corev1.Pod](c.Client()), t.Context()
	_, err := pods.Create(ctx, pod("a", nil, nil))
	wantRefusal(t, err, `pods "a" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c`)
	if _, err = pods.Create(ctx, pod("b", m{"cpu": "600m"}, m{"memory": "512Mi"})); err != nil {
		t.Fatal(err)
	}
	_, err = pods.Create(ctx, pod("c", m{"cpu": "600m"}, m{"memory": "768Mi"}))
	wantRefusal(t, err, "exceeded quota: q, requested: limits.memory=768Mi,requests.cpu=600m, used: limits.memory=512Mi,requests.cpu=600m, limited: limits.memory=1Gi,requests.cpu=1")
	wantUsed(t, c, "q", m{"requests.cpu": "600m", "limits.memory": "512Mi"})
}

// What is only tried is judged and not charged.
func TestDryRun(t *testing.T) {
	type m = map[corev1.ResourceName]string
	c := start(t, "", limit("q", m{"pods": "1"}))
	r := client.For[*corev1.Pod](c.Client()).Resource("default")
	for _, dry := range [][]string{{"All"}, {"All"}, nil} {
		if _, err := c.Client().Create(t.Context(), r, "", pod("a", nil, nil), metav1.CreateOptions{DryRun: dry}); err != nil {
			t.Fatal(err)
		}
	}
	wantUsed(t, c, "q", m{"pods": "1"})
	_, err := c.Client().Create(t.Context(), r, "", pod("b", nil, nil), metav1.CreateOptions{DryRun: []string{"All"}})
	wantRefusal(t, err, "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1")
}

// However many come at once, exactly as many are let in as there is room for.
func TestParallelCreates(t *testing.T) {
	type m = map[corev1.ResourceName]string
	c := start(t, "", limit("q", m{"pods": "10"}), limit("wide", m{"count/pods": "40"}))
	pods := client.For[*corev1.Pod](c.Client())
	var made, refused atomic.Int32
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			_, err := pods.Create(t.Context(), pod(fmt.Sprint("p", i), nil, nil))
			switch {
			case err == nil:
				made.Add(1)
			case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota: q"):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if made.Load() != 10 || refused.Load() != 40 {
		t.Errorf("made %d, refused %d; want 10 and 40", made.Load(), refused.Load())
	}
	wantUsed(t, c, "q", m{"pods": "10"})
	wantUsed(t, c, "wide", m{"count/pods": "10"})
}

// Somebody else who writes the quota all the time makes nobody fail, and no
// charge is lost.
func TestConflicts(t *testing.T) {
	type m = map[corev1.ResourceName]string
	c := start(t, "", limit("q", m{"configmaps": "20"}))
	quotas, maps := client.For[*corev1.ResourceQuota](c.Client()), client.For[*corev1.ConfigMap](c.Client())
	for i := range 20 {
		if _, err := quotas.MergePatch(t.Context(), "default", "q", map[string]any{"metadata": map[string]any{"labels": map[string]any{"n": fmt.Sprint(i)}}}, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("m", i)}}); err != nil {
			t.Fatal(err)
		}
	}
	wantUsed(t, c, "q", m{"configmaps": "20"})
}

func TestServiceType(t *testing.T) {
	type m = map[corev1.ResourceName]string
	c := start(t, "", limit("q", m{"services": "1", "services.nodeports": "1"}))
	services := client.For[*corev1.Service](c.Client())
	made, err := services.Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "a", Port: 1}, {Name: "b", Port: 2}}}})
	if err != nil {
		t.Fatal(err)
	}
	wantUsed(t, c, "q", m{"services": "1", "services.nodeports": "0"})
	changed := made.DeepCopy()
	changed.Spec.Type = corev1.ServiceTypeNodePort
	_, err = services.Update(t.Context(), changed)
	wantRefusal(t, err, "exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1")
}

func TestScopes(t *testing.T) {
	type m = map[corev1.ResourceName]string
	idle := limit("idle", m{"pods": "0"})
	idle.Spec.Scopes = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeBestEffort}
	jobs := limit("jobs", m{"pods": "0"})
	jobs.Spec.Scopes = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeTerminating}
	c := start(t, "", idle, jobs)
	pods := client.For[*corev1.Pod](c.Client())
	_, err := pods.Create(t.Context(), pod("a", nil, nil))
	wantRefusal(t, err, "exceeded quota: idle, requested: pods=1, used: pods=0, limited: pods=0")
	made, err := pods.Create(t.Context(), pod("b", m{"cpu": "1m"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	// A deadline moves the pod to the quota of those that end.
	made = made.DeepCopy()
	made.Spec.ActiveDeadlineSeconds = new(int64(5))
	_, err = pods.Update(t.Context(), made)
	wantRefusal(t, err, "exceeded quota: jobs, requested: pods=1, used: pods=0, limited: pods=0")
}

// What the configuration limits needs a quota.
func TestLimitedResources(t *testing.T) {
	type m = map[corev1.ResourceName]string
	const configuration = `{"apiVersion":"apiserver.config.k8s.io/v1","kind":"ResourceQuotaConfiguration","limitedResources":[
		{"resource":"persistentvolumeclaims","matchContains":["gold.storageclass.storage.k8s.io/requests.storage"]},
		{"resource":"pods","matchScopes":[{"scopeName":"PriorityClass","operator":"In","values":["system-cluster-critical"]}]}]}`
	c := start(t, configuration)
	claims := client.For[*corev1.PersistentVolumeClaim](c.Client())
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "v"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: new("gold"),
		Resources: corev1.VolumeResourceRequirements{Requests: list(m{"storage": "1Gi"})},
	}}
	_, err := claims.Create(t.Context(), claim)
	wantRefusal(t, err, "insufficient quota to consume: gold.storageclass.storage.k8s.io/requests.storage")
	claim.Spec.StorageClassName = new("iron")
	if _, err := claims.Create(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	p := pod("critical", nil, nil)
	p.Spec.PriorityClassName = "system-cluster-critical"
	_, err = client.For[*corev1.Pod](c.Client()).Create(t.Context(), p)
	if err == nil || !strings.Contains(err.Error(), "insufficient quota to match these scopes: [{PriorityClass In [system-cluster-critical]}]") {
		t.Errorf("got %v", err)
	}
}

func TestUncountedQuota(t *testing.T) {
	c := start(t, "")
	q, err := client.For[*corev1.ResourceQuota](c.Client()).Create(t.Context(), limit("q", map[corev1.ResourceName]string{"secrets": "1"}))
	if err != nil {
		t.Fatal(err)
	}
	q = q.DeepCopy()
	q.Status.Hard = q.Spec.Hard
	if _, err := client.For[*corev1.ResourceQuota](c.Client()).UpdateStatus(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	_, err = client.For[*corev1.Secret](c.Client()).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}})
	wantRefusal(t, err, "status unknown for quota: q, resources: secrets")
}

func TestBrokenConfiguration(t *testing.T) {
	_, err := resourcequota.New(resourcequota.Config{Configuration: []byte(`{"apiVersion":"apiserver.config.k8s.io/v1","kind":"ResourceQuotaConfiguration","limitedResources":[{}]}`)})
	if err == nil || !strings.Contains(err.Error(), "limitedResources[0].resource") {
		t.Errorf("got %v", err)
	}
}
