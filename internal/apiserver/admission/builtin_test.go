// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	imagepolicyv1alpha1 "k8s.io/api/imagepolicy/v1alpha1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"sigs.k8s.io/yaml"

	"kaji/internal/apiserver"
	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/admission/always"
	"kaji/internal/client"
	"kaji/kajitest"
)

// world is a control plane and how one user sees it.
type world struct {
	t *testing.T
	client.Interface
	cluster *kajitest.Cluster
}

// start starts a control plane with all plug-ins that are on by default and
// those named.
func start(t *testing.T, enable ...string) *world {
	t.Helper()
	return configured(t, func(c *apiserver.Config) { c.EnabledAdmission = enable })
}

func configured(t *testing.T, change func(*apiserver.Config)) *world {
	t.Helper()
	cluster := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) {
		c.DisabledAdmission = []string{"ServiceAccount"}
		change(c)
	}))
	return &world{t, cluster.Client(), cluster}
}

// as is the same control plane for another user.
func (w *world) as(name string, groups ...string) *world {
	who := &user.DefaultInfo{Name: name, Groups: append(groups, user.AllAuthenticated)}
	return &world{w.t, w.cluster.As(who), w.cluster}
}

func object[T client.Object](t *testing.T, text string) T {
	t.Helper()
	var obj T
	if err := yaml.UnmarshalStrict([]byte(text), &obj); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return obj
}

// try creates an object, in namespace default unless it says.
func try[T client.Object](w *world, text string) (T, error) {
	w.t.Helper()
	obj := object[T](w.t, text)
	m := any(obj).(metav1.Object)
	switch any(obj).(type) {
	case *corev1.Pod, *corev1.PersistentVolumeClaim, *corev1.LimitRange, *corev1.ServiceAccount, *corev1.Service, *corev1.Event, *networkingv1.Ingress:
		if m.GetNamespace() == "" {
			m.SetNamespace("default")
		}
	}
	return client.For[T](w).Create(w.t.Context(), obj)
}

func create[T client.Object](w *world, text string) T {
	w.t.Helper()
	obj, err := try[T](w, text)
	if err != nil {
		w.t.Fatalf("%v of\n%s", err, text)
	}
	return obj
}

// refused expects an object to be refused with a message.
func refused[T client.Object](w *world, text, want string) {
	w.t.Helper()
	_, err := try[T](w, text)
	refusal(w.t, err, want)
}

func refusal(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// equal compares as YAML.
func equal(t *testing.T, got any, want string) {
	t.Helper()
	text, err := yaml.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(text)) != strings.TrimSpace(want) {
		t.Errorf("got\n%swant\n%s", text, want)
	}
}

const plain = "metadata: {name: %}\nspec: {containers: [{name: c, image: i}]}"

func named(name string) string { return strings.ReplaceAll(plain, "%", name) }

func TestServiceAccount(t *testing.T) {
	w := configured(t, func(c *apiserver.Config) { c.DisabledAdmission = nil })
	refused[*corev1.Pod](w, "metadata: {name: a}\nspec: {serviceAccountName: x, containers: [{name: c, image: i}]}",
		`pods "a" is forbidden: error looking up service account default/x: serviceaccount "x" not found`)
	create[*corev1.ServiceAccount](w, "metadata: {name: default}\nimagePullSecrets: [{name: pull}]")
	create[*corev1.ServiceAccount](w, "metadata: {name: quiet}\nautomountServiceAccountToken: false")
	create[*corev1.ServiceAccount](w, `
metadata: {name: strict, annotations: {kubernetes.io/enforce-mountable-secrets: "true"}}
secrets: [{name: mine}]`)

	pod := create[*corev1.Pod](w, named("a"))
	if pod.Spec.ServiceAccountName != "default" || len(pod.Spec.ImagePullSecrets) != 1 || pod.Spec.ImagePullSecrets[0].Name != "pull" {
		t.Errorf("account %q, pull secrets %v", pod.Spec.ServiceAccountName, pod.Spec.ImagePullSecrets)
	}
	mounts := pod.Spec.Containers[0].VolumeMounts
	if len(mounts) != 1 || !strings.HasPrefix(mounts[0].Name, "kube-api-access-") || mounts[0].MountPath != "/var/run/secrets/kubernetes.io/serviceaccount" || !mounts[0].ReadOnly {
		t.Fatalf("mounts %v", mounts)
	}
	equal(t, pod.Spec.Volumes, `
- name: `+mounts[0].Name+`
  projected:
    defaultMode: 420
    sources:
    - serviceAccountToken:
        expirationSeconds: 3607
        path: token
    - configMap:
        items:
        - key: ca.crt
          path: ca.crt
        name: kube-root-ca.crt
    - downwardAPI:
        items:
        - fieldRef:
            apiVersion: v1
            fieldPath: metadata.namespace
          path: namespace`)

	if pod := create[*corev1.Pod](w, "metadata: {name: b}\nspec: {serviceAccountName: quiet, containers: [{name: c, image: i}]}"); len(pod.Spec.Volumes) != 0 {
		t.Errorf("an account that asks for none: volumes %v", pod.Spec.Volumes)
	}
	mounted := create[*corev1.Pod](w, `
metadata: {name: c}
spec:
  volumes: [{name: own, emptyDir: {}}]
  containers: [{name: c, image: i, volumeMounts: [{name: own, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}]}]`)
	if len(mounted.Spec.Volumes) != 1 {
		t.Errorf("a pod that mounts something in its place: volumes %v", mounted.Spec.Volumes)
	}
	const strict = "metadata: {name: d}\nspec: {serviceAccountName: strict, "
	refused[*corev1.Pod](w, strict+"volumes: [{name: v, secret: {secretName: x}}], containers: [{name: c, image: i}]}",
		`volume with secret.secretName="x" is not allowed because service account strict does not reference that secret`)
	refused[*corev1.Pod](w, strict+"containers: [{name: c, image: i, envFrom: [{secretRef: {name: x}}]}]}",
		`container c with envFrom referencing secret.secretName="x" is not allowed because service account strict does not reference that secret`)
	refused[*corev1.Pod](w, strict+"imagePullSecrets: [{name: x}], containers: [{name: c, image: i}]}",
		`imagePullSecrets[0].name="x" is not allowed because service account strict does not reference that imagePullSecret`)
	create[*corev1.Pod](w, strict+"volumes: [{name: v, secret: {secretName: mine}}], containers: [{name: c, image: i}]}")
	refused[*corev1.Pod](w, "metadata: {name: e, annotations: {kubernetes.io/config.mirror: x}}\nspec: {nodeName: n, serviceAccountName: default, containers: [{name: c, image: i}]}",
		"a mirror pod may not reference service accounts")
}

func TestLimitRanger(t *testing.T) {
	w := start(t)
	create[*corev1.LimitRange](w, `
metadata: {name: l}
spec:
  limits:
  - {type: Container, defaultRequest: {cpu: 100m}, default: {cpu: 200m, memory: 1Gi}, min: {cpu: 50m}, max: {cpu: 500m}, maxLimitRequestRatio: {cpu: 4}}
  - {type: Pod, max: {cpu: 600m}}
  - {type: PersistentVolumeClaim, min: {storage: 1Gi}, max: {storage: 5Gi}}`)
	pod := create[*corev1.Pod](w, named("a"))
	equal(t, pod.Spec.Containers[0].Resources, "limits:\n  cpu: 200m\n  memory: 1Gi\nrequests:\n  cpu: 100m\n  memory: 1Gi")
	if got, want := pod.Annotations["kubernetes.io/limit-ranger"], "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"; got != want {
		t.Errorf("annotation %q, want %q", got, want)
	}
	for resources, want := range map[string]string{
		"requests: {cpu: 10m}, limits: {cpu: 20m}":   "minimum cpu usage per Container is 50m, but request is 10m",
		"requests: {cpu: 50m}, limits: {cpu: 201m}":  "cpu max limit to request ratio per Container is 4, but provided ratio is 4.020000",
		"requests: {cpu: 500m}, limits: {cpu: 501m}": "maximum cpu usage per Container is 500m, but limit is 501m",
	} {
		refused[*corev1.Pod](w, "metadata: {name: b}\nspec: {containers: [{name: c, image: i, resources: {"+resources+"}}]}", want)
	}
	const big = "image: i, resources: {requests: {cpu: 301m}, limits: {cpu: 301m}}"
	refused[*corev1.Pod](w, "metadata: {name: b}\nspec: {containers: [{name: c, "+big+"}, {name: d, "+big+"}]}",
		`pods "b" is forbidden: maximum cpu usage per Pod is 600m, but limit is 602m`)
	const claim = "metadata: {name: c}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: %}}}"
	refused[*corev1.PersistentVolumeClaim](w, strings.ReplaceAll(claim, "%", "6Gi"), "maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi")
	refused[*corev1.PersistentVolumeClaim](w, strings.ReplaceAll(claim, "%", "1Mi"), "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi")
	create[*corev1.PersistentVolumeClaim](w, strings.ReplaceAll(claim, "%", "2Gi"))
}

func TestNodesAndTolerations(t *testing.T) {
	w := start(t, "ExtendedResourceToleration")
	node := create[*corev1.Node](w, "metadata: {name: n, labels: {topology.kubernetes.io/zone: z, topology.kubernetes.io/region: r, kubernetes.io/hostname: n}}")
	equal(t, node.Spec.Taints, "- effect: NoSchedule\n  key: node.kubernetes.io/not-ready")
	pod := create[*corev1.Pod](w, `
metadata: {name: p, labels: {topology.kubernetes.io/region: own}}
spec:
  nodeName: n
  tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]
  containers: [{name: c, image: i, resources: {limits: {example.com/gpu: 1}}}]`)
	equal(t, pod.Labels, "topology.kubernetes.io/region: own\ntopology.kubernetes.io/zone: z")
	equal(t, pod.Spec.Tolerations, `
- effect: NoExecute
  key: node.kubernetes.io/not-ready
  operator: Exists
  tolerationSeconds: 5
- effect: NoExecute
  key: node.kubernetes.io/unreachable
  operator: Exists
  tolerationSeconds: 300
- effect: NoSchedule
  key: example.com/gpu
  operator: Exists`)
}

func TestPriority(t *testing.T) {
	w := start(t)
	if p := create[*corev1.Pod](w, named("none")); p.Spec.Priority == nil || *p.Spec.Priority != 0 || p.Spec.PriorityClassName != "" {
		t.Errorf("without classes: %v", p.Spec.Priority)
	}
	create[*schedulingv1.PriorityClass](w, "metadata: {name: usual}\nvalue: 7\nglobalDefault: true")
	create[*schedulingv1.PriorityClass](w, "metadata: {name: high}\nvalue: 100\npreemptionPolicy: Never")
	refused[*schedulingv1.PriorityClass](w, "metadata: {name: other}\nvalue: 7\nglobalDefault: true",
		`priorityclasses.scheduling.k8s.io "other" is forbidden: PriorityClass usual is already marked as default. Only one default can exist`)
	if p := create[*corev1.Pod](w, named("usual")); *p.Spec.Priority != 7 || p.Spec.PriorityClassName != "usual" {
		t.Errorf("the default class: %v %q", *p.Spec.Priority, p.Spec.PriorityClassName)
	}
	const of = "metadata: {name: p}\nspec: {priorityClassName: high, %containers: [{name: c, image: i}]}"
	refused[*corev1.Pod](w, strings.ReplaceAll(of, "%", "priority: 5, "),
		"the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 100 from the given PriorityClass name")
	refused[*corev1.Pod](w, strings.ReplaceAll(of, "%", "preemptionPolicy: PreemptLowerPriority, "),
		"the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec")
	refused[*corev1.Pod](w, strings.ReplaceAll(strings.ReplaceAll(of, "%", ""), "high", "absent"), `pods "p" is forbidden: no PriorityClass with name absent was found`)
	if p := create[*corev1.Pod](w, strings.ReplaceAll(of, "%", "")); *p.Spec.Priority != 100 || *p.Spec.PreemptionPolicy != corev1.PreemptNever {
		t.Errorf("a class: %v %v", *p.Spec.Priority, *p.Spec.PreemptionPolicy)
	}
	err := client.For[*schedulingv1.PriorityClass](w).Delete(t.Context(), "", "system-node-critical", metav1.DeleteOptions{})
	refusal(t, err, `priorityclasses.scheduling.k8s.io "system-node-critical" is forbidden: this is a system priority class and cannot be deleted`)
}

func TestRuntimeClass(t *testing.T) {
	w := start(t)
	create[*nodev1.RuntimeClass](w, `
metadata: {name: r}
handler: h
overhead: {podFixed: {cpu: 10m}}
scheduling: {nodeSelector: {a: b}, tolerations: [{key: k, operator: Exists}]}`)
	pod := create[*corev1.Pod](w, "metadata: {name: p}\nspec: {runtimeClassName: r, nodeSelector: {c: d}, containers: [{name: c, image: i}]}")
	equal(t, pod.Spec.Overhead, "cpu: 10m")
	equal(t, pod.Spec.NodeSelector, "a: b\nc: d")
	if pod.Spec.Tolerations[len(pod.Spec.Tolerations)-1].Key != "k" {
		t.Errorf("tolerations %v", pod.Spec.Tolerations)
	}
	refused[*corev1.Pod](w, "metadata: {name: q}\nspec: {runtimeClassName: r, nodeSelector: {a: d}, containers: [{name: c, image: i}]}",
		"conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = d")
	refused[*corev1.Pod](w, "metadata: {name: q}\nspec: {runtimeClassName: r, overhead: {cpu: 1}, containers: [{name: c, image: i}]}",
		"pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
	refused[*corev1.Pod](w, "metadata: {name: q}\nspec: {runtimeClassName: x, containers: [{name: c, image: i}]}", `pod rejected: RuntimeClass "x" not found`)
	refused[*corev1.Pod](w, "metadata: {name: q}\nspec: {overhead: {cpu: 1}, containers: [{name: c, image: i}]}",
		"pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
}

func TestStorage(t *testing.T) {
	w := start(t)
	const claim = "metadata: {name: %}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}"
	first := create[*corev1.PersistentVolumeClaim](w, strings.ReplaceAll(claim, "%", "a"))
	equal(t, first.Finalizers, "- kubernetes.io/pvc-protection")
	if first.Spec.StorageClassName != nil {
		t.Errorf("class %q without a default", *first.Spec.StorageClassName)
	}
	create[*storagev1.StorageClass](w, `{metadata: {name: b, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}, provisioner: x/y, allowVolumeExpansion: true}`)
	create[*storagev1.StorageClass](w, "{metadata: {name: a}, provisioner: x/y}")
	second := create[*corev1.PersistentVolumeClaim](w, strings.ReplaceAll(claim, "%", "b"))
	if second.Spec.StorageClassName == nil || *second.Spec.StorageClassName != "b" {
		t.Errorf("class %v, want the default", second.Spec.StorageClassName)
	}
	volume := create[*corev1.PersistentVolume](w, "metadata: {name: v}\nspec: {accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}, hostPath: {path: /x}}")
	equal(t, volume.Finalizers, "- kubernetes.io/pv-protection")

	claims := client.For[*corev1.PersistentVolumeClaim](w)
	grow := func(c *corev1.PersistentVolumeClaim) error {
		_, err := claims.MergePatch(t.Context(), "default", c.Name, map[string]any{"spec": map[string]any{"resources": map[string]any{"requests": map[string]any{"storage": "2Gi"}}}}, "")
		return err
	}
	for _, c := range []*corev1.PersistentVolumeClaim{first, second} {
		bound := map[string]any{"spec": map[string]any{"volumeName": "v"}}
		if _, err := claims.MergePatch(t.Context(), "default", c.Name, bound, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := claims.MergePatch(t.Context(), "default", c.Name, map[string]any{"status": map[string]any{"phase": "Bound"}}, "status"); err != nil {
			t.Fatal(err)
		}
	}
	refusal(t, grow(first), "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize")
	if err := grow(second); err != nil {
		t.Errorf("a class that allows it: %v", err)
	}
}

func TestDefaultIngressClass(t *testing.T) {
	w := start(t)
	create[*networkingv1.IngressClass](w, `{metadata: {name: c, annotations: {ingressclass.kubernetes.io/is-default-class: "true"}}, spec: {controller: x/y}}`)
	const backend = "spec: {%defaultBackend: {service: {name: s, port: {number: 1}}}}"
	in := create[*networkingv1.Ingress](w, "metadata: {name: a}\n"+strings.ReplaceAll(backend, "%", ""))
	if in.Spec.IngressClassName == nil || *in.Spec.IngressClassName != "c" {
		t.Errorf("class %v, want the default", in.Spec.IngressClassName)
	}
	in = create[*networkingv1.Ingress](w, "metadata: {name: b, annotations: {kubernetes.io/ingress.class: old}}\n"+strings.ReplaceAll(backend, "%", ""))
	if in.Spec.IngressClassName != nil {
		t.Errorf("class %q beside the annotation", *in.Spec.IngressClassName)
	}
}

func TestNamespaces(t *testing.T) {
	w := start(t)
	refused[*corev1.Pod](w, "metadata: {name: p, namespace: absent}\nspec: {containers: [{name: c, image: i}]}", `namespaces "absent" not found`)
	create[*corev1.Namespace](w, "metadata: {name: going}\nspec: {finalizers: [kubernetes]}")
	namespaces := client.For[*corev1.Namespace](w)
	if err := namespaces.Delete(t.Context(), "", "going", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := try[*corev1.ServiceAccount](w, "metadata: {name: a, namespace: going}")
	refusal(t, err, `serviceaccounts "a" is forbidden: unable to create new content in namespace going because it is being terminated`)
	if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		t.Errorf("no cause in %v", err)
	}
	refusal(t, namespaces.Delete(t.Context(), "", "kube-system", metav1.DeleteOptions{}), `namespaces "kube-system" is forbidden: this namespace may not be deleted`)

	w = start(t, "NamespaceAutoProvision")
	create[*corev1.ServiceAccount](w, "metadata: {name: a, namespace: new}")
	if _, err := client.For[*corev1.Namespace](w).Get(t.Context(), "", "new"); err != nil {
		t.Error(err)
	}
}

// denies refuses one verb to everybody but the administrators.
func denies(verb string) authorizer.Authorizer {
	return authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		if a.GetVerb() == verb && !slices.Contains(a.GetUser().GetGroups(), user.SystemPrivilegedGroup) {
			return authorizer.DecisionNoOpinion, "", nil
		}
		return authorizer.DecisionAllow, "", nil
	})
}

// csr is a certificate request as it stands in YAML.
func csr(t *testing.T, name, organization string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name, Organization: []string{organization}}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func TestCertificates(t *testing.T) {
	const request = "metadata: {name: %}\nspec: {signerName: SIGNER, usages: [client auth], request: CSR}"
	make := func(name, signer, csr string) string {
		return strings.NewReplacer("%", name, "SIGNER", signer, "CSR", csr).Replace(request)
	}
	for verb, subresource := range map[string]string{"approve": "approval", "sign": "status"} {
		w := configured(t, func(c *apiserver.Config) { c.Authorizer = denies(verb) })
		refused[*certificatesv1.CertificateSigningRequest](w, make("c", "kubernetes.io/kube-apiserver-client", csr(t, "x", "system:masters")),
			"use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed")
		create[*certificatesv1.CertificateSigningRequest](w, make("c", "example.com/s", csr(t, "x", "system:masters")))
		condition := "Approved"
		if verb == "sign" {
			condition = "Failed"
		}
		patch := map[string]any{"status": map[string]any{"conditions": []any{map[string]any{"type": condition, "status": "True"}}}}
		_, err := client.For[*certificatesv1.CertificateSigningRequest](w.as("bob")).MergePatch(t.Context(), "", "c", patch, subresource)
		refusal(t, err, "user not permitted to "+verb+` requests with signerName "example.com/s"`)
		if _, err := client.For[*certificatesv1.CertificateSigningRequest](w).MergePatch(t.Context(), "", "c", patch, subresource); err != nil {
			t.Errorf("the administrator: %v", err)
		}
	}
}

// Plug-ins that are off unless they are asked for.
func TestOffByDefault(t *testing.T) {
	const external = "metadata: {name: s}\nspec: {ports: [{port: 1}], externalIPs: [1.2.3.4]}"
	const spread = "metadata: {name: p}\nspec: {affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone}]}}, containers: [{name: c, image: i}]}"
	w := start(t)
	create[*corev1.Service](w, external)
	create[*corev1.Pod](w, spread)

	w = start(t, "DenyServiceExternalIPs", "LimitPodHardAntiAffinityTopology", "AlwaysPullImages", "NamespaceExists", "AlwaysAdmit")
	refused[*corev1.Service](w, external, `services "s" is forbidden: Use of external IPs is denied by admission control`)
	refused[*corev1.Pod](w, spread, `pods "p" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed`)
	pod := create[*corev1.Pod](w, `
metadata: {name: q}
spec:
  volumes: [{name: v, image: {reference: r, pullPolicy: Never}}]
  initContainers: [{name: d, image: i, imagePullPolicy: Never}]
  containers: [{name: c, image: i, imagePullPolicy: IfNotPresent}]`)
	if s := pod.Spec; s.Containers[0].ImagePullPolicy != "Always" || s.InitContainers[0].ImagePullPolicy != "Always" || s.Volumes[0].Image.PullPolicy != "Always" {
		t.Errorf("pull policies %v %v %v", s.Containers[0].ImagePullPolicy, s.InitContainers[0].ImagePullPolicy, s.Volumes[0].Image.PullPolicy)
	}

	// A server that denies everything cannot even make its own objects.
	a := &admission.Attributes{Operation: admission.Create, Resource: corev1.SchemeGroupVersion.WithResource("pods"), Name: "p"}
	refusal(t, admission.Chain{always.Deny{}}.Mutate(t.Context(), a), `pods "p" is forbidden: admission control is denying all modifications`)
}

func TestPodNodeSelector(t *testing.T) {
	w := configured(t, func(c *apiserver.Config) {
		c.EnabledAdmission = []string{"PodNodeSelector"}
		c.AdmissionConfiguration = map[string][]byte{"PodNodeSelector": []byte("podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: a=b, kube-system: c=d}")}
	})
	equal(t, create[*corev1.Pod](w, named("p")).Spec.NodeSelector, "a: b")
	const selecting = "metadata: {name: q%}\nspec: {nodeSelector: {SELECT}, containers: [{name: c, image: i}]}"
	refused[*corev1.Pod](w, strings.NewReplacer("%", "", "SELECT", "a: c").Replace(selecting), `pods "q" is forbidden: pod node label selector conflicts with its namespace node label selector`)
	refused[*corev1.Pod](w, strings.NewReplacer("%", ", namespace: kube-system", "SELECT", "c: d").Replace(selecting), `pods "q" is forbidden: pod node label selector labels conflict with its namespace whitelist`)
	create[*corev1.Namespace](w, "metadata: {name: own, annotations: {scheduler.alpha.kubernetes.io/node-selector: x=y}}")
	equal(t, create[*corev1.Pod](w, strings.NewReplacer("%", ", namespace: own", "SELECT", "c: d").Replace(selecting)).Spec.NodeSelector, "c: d\nx: \"y\"")
}

func TestPodTolerationRestriction(t *testing.T) {
	w := configured(t, func(c *apiserver.Config) {
		c.EnabledAdmission = []string{"PodTolerationRestriction"}
		c.DisabledAdmission = append(c.DisabledAdmission, "DefaultTolerationSeconds")
		c.AdmissionConfiguration = map[string][]byte{"PodTolerationRestriction": []byte(`
apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1
kind: Configuration
default: [{key: a, operator: Exists}]
whitelist: [{key: a, operator: Exists}, {key: b, operator: Exists}, {key: node.kubernetes.io/memory-pressure, operator: Exists}]`)}
	})
	pod := create[*corev1.Pod](w, "metadata: {name: p}\nspec: {containers: [{name: c, image: i, resources: {requests: {cpu: 1}}}]}")
	equal(t, pod.Spec.Tolerations, "- key: a\n  operator: Exists\n- effect: NoSchedule\n  key: node.kubernetes.io/memory-pressure\n  operator: Exists")
	const tolerating = "metadata: {name: q%}\nspec: {tolerations: [{key: c, operator: Exists}], containers: [{name: c, image: i}]}"
	refused[*corev1.Pod](w, strings.ReplaceAll(tolerating, "%", ""), "pod tolerations (possibly merged with namespace default tolerations) conflict with its cluster whitelist")
	create[*corev1.Namespace](w, `{metadata: {name: own, annotations: {scheduler.alpha.kubernetes.io/defaultTolerations: "", scheduler.alpha.kubernetes.io/tolerationsWhitelist: '[{"key":"c","operator":"Exists"}]'}}}`)
	equal(t, create[*corev1.Pod](w, strings.ReplaceAll(tolerating, "%", ", namespace: own")).Spec.Tolerations, "- key: c\n  operator: Exists")
}

func TestEventRateLimit(t *testing.T) {
	w := configured(t, func(c *apiserver.Config) {
		c.EnabledAdmission = []string{"EventRateLimit"}
		c.AdmissionConfiguration = map[string][]byte{"EventRateLimit": []byte(`
apiVersion: eventratelimit.admission.k8s.io/v1alpha1
kind: Configuration
limits: [{type: Namespace, qps: 1, burst: 2}, {type: SourceAndObject, qps: 1, burst: 5000}]`)}
	})
	event := func(name, namespace string) error {
		_, err := try[*corev1.Event](w, "metadata: {name: "+name+", namespace: "+namespace+"}\ninvolvedObject: {namespace: "+namespace+"}")
		return err
	}
	create[*corev1.Namespace](w, "metadata: {name: other}")
	var err error
	for i := 0; i < 1000 && err == nil; i++ {
		err = event(fmt.Sprint("e", i), "default")
	}
	refusal(t, err, "limit reached on type Namespace for key default")
	if !apierrors.IsTooManyRequests(err) {
		t.Errorf("%v is not the refusal of too many requests", err)
	}
	if err := event("e", "other"); err != nil {
		t.Errorf("another namespace: %v", err)
	}
}

func TestOwnerReferences(t *testing.T) {
	for verb, want := range map[string]string{
		"delete": "cannot set an ownerRef on a resource you can't delete: , <nil>",
		"update": "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>",
	} {
		w := configured(t, func(c *apiserver.Config) {
			c.Authorizer, c.EnabledAdmission = denies(verb), []string{"OwnerReferencesPermissionEnforcement"}
		})
		create[*corev1.ServiceAccount](w, "metadata: {name: a}")
		own := map[string]any{"metadata": map[string]any{"ownerReferences": []any{map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u", "blockOwnerDeletion": true}}}}
		_, err := client.For[*corev1.ServiceAccount](w.as("bob")).MergePatch(t.Context(), "default", "a", own, "")
		refusal(t, err, `serviceaccounts "a" is forbidden: `+want)
		if _, err := client.For[*corev1.ServiceAccount](w).MergePatch(t.Context(), "default", "a", own, ""); err != nil {
			t.Errorf("the administrator: %v", err)
		}
	}
}

func TestPodResize(t *testing.T) {
	w := start(t)
	create[*corev1.Node](w, "metadata: {name: n1}\nstatus: {allocatable: {cpu: 1, memory: 1Gi}}")
	create[*corev1.Node](w, "metadata: {name: w, labels: {kubernetes.io/os: windows}}")
	for node, want := range map[string]string{
		"n1": `pods "n1" is forbidden: node didn't have enough allocatable resources: cpu, requested: 2000, allocatable: 1000`,
		"w":  `pods "w" is forbidden: pod resize is only supported on linux nodes, node "w" is "windows"`,
		"x":  `pods "x" is forbidden: node "x" not found`,
	} {
		create[*corev1.Pod](w, "metadata: {name: "+node+"}\nspec: {nodeName: "+node+", containers: [{name: c, image: i, resources: {requests: {cpu: 100m}}}]}")
		_, err := client.For[*corev1.Pod](w).Patch(t.Context(), "default", node, types.StrategicMergePatchType,
			[]byte(`{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"2"}}}]}}`), "resize")
		refusal(t, err, want)
	}
}

func TestNodeRestriction(t *testing.T) {
	w := start(t, "NodeRestriction")
	node := w.as("system:node:n1", user.NodesGroup)
	refused[*corev1.Node](node, "metadata: {name: m}", `nodes "m" is forbidden: node "n1" is not allowed to modify node "m"`)
	refused[*corev1.Node](node, "metadata: {name: n1, labels: {node-restriction.kubernetes.io/x: y, foo.kubernetes.io/z: y, own: y}}",
		`node "n1" is not allowed to set the following labels: foo.kubernetes.io/z, node-restriction.kubernetes.io/x`)
	self := create[*corev1.Node](node, "metadata: {name: n1, labels: {kubernetes.io/hostname: n1}}")
	_, err := client.For[*corev1.Node](node).MergePatch(t.Context(), "", "n1", map[string]any{"spec": map[string]any{"taints": nil}}, "")
	refusal(t, err, `node "n1" is not allowed to modify taints`)

	mirror := func(name, owner, more string) string {
		return "metadata: {name: " + name + ", annotations: {kubernetes.io/config.mirror: x}, ownerReferences: [{apiVersion: v1, kind: Node, name: n1, controller: true, uid: " + owner +
			"}]}\nspec: {nodeName: n1, " + more + "containers: [{name: c, image: i}]}"
	}
	refused[*corev1.Pod](node, named("p"), `pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods`)
	refused[*corev1.Pod](node, mirror("p", "u", ""), "node n1 UID mismatch: expected u got "+string(self.UID))
	refused[*corev1.Pod](node, mirror("p", string(self.UID), "volumes: [{name: v, configMap: {name: x}}], "), `node "n1" can not create pods that reference configmaps`)
	refused[*corev1.Pod](node, mirror("p", string(self.UID), "volumes: [{name: v, csi: {driver: x}}], "), `node "n1" can not create pods that reference csidrivers (via CSI volumes)`)
	create[*corev1.Pod](node, mirror("p", string(self.UID), ""))

	create[*corev1.Pod](w, "metadata: {name: other}\nspec: {nodeName: m, containers: [{name: c, image: i}]}")
	pods := client.For[*corev1.Pod](node)
	refusal(t, pods.Delete(t.Context(), "default", "other", metav1.DeleteOptions{}), `node "n1" can only delete pods with spec.nodeName set to itself`)
	_, err = pods.MergePatch(t.Context(), "default", "other", map[string]any{"status": map[string]any{"phase": "Failed"}}, "status")
	refusal(t, err, `node "n1" can only update pod status for pods with spec.nodeName set to itself`)
	if _, err = pods.MergePatch(t.Context(), "default", "p", map[string]any{"status": map[string]any{"phase": "Running"}}, "status"); err != nil {
		t.Errorf("its own pod: %v", err)
	}
	const request = "metadata: {name: c}\nspec: {signerName: kubernetes.io/kubelet-serving, usages: [server auth, digital signature], request: "
	refused[*certificatesv1.CertificateSigningRequest](node, request+csr(t, "system:node:m", "system:nodes")+"}", "can only create a node CSR with CN=system:node:n1")
	create[*certificatesv1.CertificateSigningRequest](node, request+csr(t, "system:node:n1", "system:nodes")+"}")
}

// webhook answers image reviews.
func webhook(t *testing.T, answer func(*imagepolicyv1alpha1.ImageReview)) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review imagepolicyv1alpha1.ImageReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer(&review)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: " + server.URL + "}}]\ncontexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestImagePolicyWebhook(t *testing.T) {
	var asked atomic.Int32
	file := webhook(t, func(r *imagepolicyv1alpha1.ImageReview) {
		asked.Add(1)
		r.Status.Allowed = r.Spec.Containers[0].Image == "good" && r.Spec.Annotations["x.image-policy.k8s.io/y"] == "z" && len(r.Spec.Annotations) == 1
		r.Status.Reason = "image " + r.Spec.Containers[0].Image
	})
	w := configured(t, func(c *apiserver.Config) {
		c.EnabledAdmission = []string{"ImagePolicyWebhook"}
		c.AdmissionConfiguration = map[string][]byte{"ImagePolicyWebhook": []byte("imagePolicy: {kubeConfigFile: " + file + "}")}
	})
	const of = "metadata: {name: NAME, annotations: {x.image-policy.k8s.io/y: z, other: x}}\nspec: {containers: [{name: c, image: IMAGE}]}"
	refused[*corev1.Pod](w, strings.NewReplacer("NAME", "p", "IMAGE", "bad").Replace(of), `pods "p" is forbidden: image policy webhook backend denied one or more images: image bad`)
	create[*corev1.Pod](w, strings.NewReplacer("NAME", "p", "IMAGE", "good").Replace(of))
	create[*corev1.Pod](w, strings.NewReplacer("NAME", "q", "IMAGE", "good").Replace(of))
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times, want one for each image", n)
	}
}
