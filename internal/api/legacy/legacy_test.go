// SPDX-License-Identifier: Apache-2.0

package legacy_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"kaji/internal/api"
	"kaji/internal/api/catalog"
	"kaji/internal/api/kindtest"
)

const pod = "template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c, image: i}]}}"

// manifests are as one would have written them for Kubernetes 1.14, with what
// they have to become in the current version, by its YAML.
var manifests = []struct {
	version, kind, text string
	check               func(t *testing.T, hub api.Object)
	// shown is what the version shows again.
	shown string
}{
	{"extensions/v1beta1", "Deployment", "spec: {" + pod + "}", func(t *testing.T, hub api.Object) {
		d := hub.(*appsv1.Deployment)
		if d.Spec.Selector.MatchLabels["app"] != "x" || d.Labels["app"] != "x" || d.Spec.Strategy.RollingUpdate.MaxSurge.IntVal != 1 || *d.Spec.RevisionHistoryLimit < 1000 {
			t.Errorf("%+v", d)
		}
	}, "selector: {matchLabels: {app: x}}"},
	{"apps/v1beta1", "Deployment", "spec: {" + pod + "}", func(t *testing.T, hub api.Object) {
		if d := hub.(*appsv1.Deployment); *d.Spec.RevisionHistoryLimit != 2 || d.Spec.Strategy.RollingUpdate.MaxSurge.StrVal != "25%" {
			t.Errorf("%+v", d.Spec)
		}
	}, ""},
	{"apps/v1beta2", "Deployment", "spec: {selector: {matchLabels: {app: x}}, " + pod + "}", nil, ""},
	{"extensions/v1beta1", "DaemonSet", "spec: {templateGeneration: 3, " + pod + "}", func(t *testing.T, hub api.Object) {
		if d := hub.(*appsv1.DaemonSet); d.Spec.UpdateStrategy.Type != appsv1.OnDeleteDaemonSetStrategyType || d.Annotations[appsv1.DeprecatedTemplateGeneration] != "3" {
			t.Errorf("%+v", d)
		}
	}, "templateGeneration: 3"},
	{"extensions/v1beta1", "ReplicaSet", "spec: {" + pod + "}", nil, ""},
	{"apps/v1beta1", "StatefulSet", "spec: {serviceName: s, " + pod + "}", func(t *testing.T, hub api.Object) {
		if s := hub.(*appsv1.StatefulSet); s.Spec.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType {
			t.Errorf("%+v", s.Spec)
		}
	}, ""},
	{"extensions/v1beta1", "Ingress", "spec: {backend: {serviceName: d, servicePort: web}, rules: [{host: a.example.com, http: {paths: [{path: /x, backend: {serviceName: s, servicePort: 80}}]}}]}",
		func(t *testing.T, hub api.Object) {
			i := hub.(*networkingv1.Ingress)
			path := i.Spec.Rules[0].HTTP.Paths[0]
			if i.Spec.DefaultBackend.Service.Port.Name != "web" || *path.PathType != networkingv1.PathTypeImplementationSpecific || path.Backend.Service.Port.Number != 80 {
				t.Errorf("%+v", i.Spec)
			}
		}, "servicePort: 80"},
	{"networking.k8s.io/v1beta1", "Ingress", "spec: {backend: {serviceName: d, servicePort: 80}}", nil, "serviceName: d"},
	{"networking.k8s.io/v1beta1", "IngressClass", "spec: {controller: example.com/c}", nil, ""},
	{"extensions/v1beta1", "NetworkPolicy", "spec: {podSelector: {}, ingress: [{}]}", func(t *testing.T, hub api.Object) {
		if p := hub.(*networkingv1.NetworkPolicy); len(p.Spec.PolicyTypes) != 1 {
			t.Errorf("%+v", p.Spec)
		}
	}, ""},
	{"batch/v1beta1", "CronJob", "spec: {schedule: '* * * * *', jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}", nil, ""},
	{"policy/v1beta1", "PodDisruptionBudget", "spec: {minAvailable: 1, selector: {matchLabels: {a: b}}}", nil, ""},
	{"rbac.authorization.k8s.io/v1beta1", "Role", "rules: [{verbs: [get], apiGroups: [''], resources: [pods]}]", nil, ""},
	{"rbac.authorization.k8s.io/v1alpha1", "ClusterRoleBinding", "roleRef: {kind: ClusterRole, name: r, apiGroup: rbac.authorization.k8s.io}\nsubjects: [{kind: User, name: u, apiVersion: rbac.authorization.k8s.io/v1alpha1}]", nil, "apiVersion: rbac.authorization.k8s.io/v1alpha1"},
	{"storage.k8s.io/v1beta1", "StorageClass", "provisioner: p", nil, ""},
	{"admissionregistration.k8s.io/v1beta1", "ValidatingWebhookConfiguration", "webhooks: [{name: a.example.com, clientConfig: {url: 'https://x'}}]", nil, "sideEffects: None"},
	{"apiregistration.k8s.io/v1beta1", "APIService", "spec: {group: example.com, version: v1, groupPriorityMinimum: 1, versionPriority: 1, service: {name: s, namespace: n}}", nil, ""},
	{"coordination.k8s.io/v1beta1", "Lease", "spec: {holderIdentity: x}", nil, ""},
	{"scheduling.k8s.io/v1beta1", "PriorityClass", "value: 5", nil, ""},
	{"node.k8s.io/v1beta1", "RuntimeClass", "handler: h", nil, ""},
	{"node.k8s.io/v1alpha1", "RuntimeClass", "spec: {runtimeHandler: h, overhead: {podFixed: {cpu: 1m}}}", func(t *testing.T, hub api.Object) {
		if c := hub.(*nodev1.RuntimeClass); c.Handler != "h" || c.Overhead.PodFixed.Cpu().MilliValue() != 1 {
			t.Errorf("%+v", c)
		}
	}, "spec: {overhead: {podFixed: {cpu: 1m}}, runtimeHandler: h}"},
	{"autoscaling/v2beta2", "HorizontalPodAutoscaler", "spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}}", nil, ""},
	{"autoscaling/v2beta1", "HorizontalPodAutoscaler", "spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}, metrics: [{type: Resource, resource: {name: cpu, targetAverageUtilization: 50}}," +
		" {type: Pods, pods: {metricName: rps, targetAverageValue: 1k}}, {type: Object, object: {target: {kind: Service, name: s}, metricName: m, targetValue: 2, averageValue: 1}}," +
		" {type: External, external: {metricName: q, metricSelector: {matchLabels: {a: b}}, targetValue: 3}}]}", func(t *testing.T, hub api.Object) {
		spec := hub.(*autoscalingv2.HorizontalPodAutoscaler).Spec
		if *spec.MinReplicas != 1 || *spec.Metrics[0].Resource.Target.AverageUtilization != 50 || spec.Metrics[0].Resource.Target.Type != autoscalingv2.UtilizationMetricType ||
			spec.Metrics[1].Pods.Metric.Name != "rps" || spec.Metrics[2].Object.Target.Type != autoscalingv2.AverageValueMetricType ||
			spec.Metrics[3].External.Target.Value.String() != "3" {
			t.Errorf("%+v", spec)
		}
	}, "external: {metricName: q, metricSelector: {matchLabels: {a: b}}, targetValue: '3'}"},
	{"autoscaling/v2beta1", "HorizontalPodAutoscaler", "spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}}", func(t *testing.T, hub api.Object) {
		if m := hub.(*autoscalingv2.HorizontalPodAutoscaler).Spec.Metrics; len(m) != 1 || *m[0].Resource.Target.AverageUtilization != 80 {
			t.Errorf("%+v", m)
		}
	}, "targetAverageUtilization: 80"},
	{"authorization.k8s.io/v1beta1", "SubjectAccessReview", "spec: {user: u, group: [g], nonResourceAttributes: {path: /x, verb: get}}", func(t *testing.T, hub api.Object) {
		if s := hub.(*authorizationv1.SubjectAccessReview).Spec; len(s.Groups) != 1 || s.Groups[0] != "g" {
			t.Errorf("%+v", s)
		}
	}, "group: [g]"},
	{"authentication.k8s.io/v1beta1", "TokenReview", "spec: {token: x, audiences: [a]}", nil, "audiences: [a]"},
	{"discovery.k8s.io/v1beta1", "EndpointSlice", "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1], topology: {kubernetes.io/hostname: node, topology.kubernetes.io/zone: z}}]", func(t *testing.T, hub api.Object) {
		if e := hub.(*discoveryv1.EndpointSlice).Endpoints[0]; *e.NodeName != "node" || *e.Zone != "z" {
			t.Errorf("%+v", e)
		}
	}, "kubernetes.io/hostname: node"},
	{"events.k8s.io/v1beta1", "Event", "regarding: {namespace: ns, name: p}\nnote: hello", func(t *testing.T, hub api.Object) {
		if e := hub.(*corev1.Event); e.Message != "hello" || e.InvolvedObject.Name != "p" {
			t.Errorf("%+v", e)
		}
	}, "note: hello"},
	{"flowcontrol.apiserver.k8s.io/v1beta1", "PriorityLevelConfiguration", "spec: {type: Limited, limited: {assuredConcurrencyShares: 7, limitResponse: {type: Reject}}}", func(t *testing.T, hub api.Object) {
		if p := hub.(*flowcontrolv1.PriorityLevelConfiguration); *p.Spec.Limited.NominalConcurrencyShares != 7 {
			t.Errorf("%+v", p.Spec.Limited)
		}
	}, "assuredConcurrencyShares: 7"},
	{"apiextensions.k8s.io/v1beta1", "CustomResourceDefinition", "spec: {group: example.com, version: v1, scope: Namespaced, names: {plural: ws, kind: W}, additionalPrinterColumns: [{name: A, type: string, JSONPath: .spec.a}], subresources: {status: {}}, validation: {openAPIV3Schema: {properties: {spec: {required: [a]}}}}}",
		func(t *testing.T, hub api.Object) {
			v := hub.(*apiextensionsv1.CustomResourceDefinition).Spec.Versions[0]
			if v.Subresources == nil || v.AdditionalPrinterColumns[0].JSONPath != ".spec.a" || !*v.Schema.OpenAPIV3Schema.XPreserveUnknownFields {
				t.Errorf("%+v", v)
			}
		}, "JSONPath: .spec.a"},
}

var names = map[string]string{"APIService": "v1.example.com", "CustomResourceDefinition": "ws.example.com"}

func TestManifests(t *testing.T) {
	kinds := catalog.All()
	for _, m := range manifests {
		t.Run(strings.ReplaceAll(m.version, "/", " ")+" "+m.kind, func(t *testing.T) {
			gv, err := schema.ParseGroupVersion(m.version)
			if err != nil {
				t.Fatal(err)
			}
			kind := kindtest.Find(t, kinds, m.kind)
			version := kind.Version(gv)
			if version == nil || !version.OptIn || !strings.Contains(version.Warning, "; use "+kind.Storage.String()) {
				t.Fatalf("%+v", version)
			}
			name := names[m.kind]
			if name == "" {
				name = "x"
			}
			metadata := "\nmetadata: {name: " + name + ", namespace: ns}\n"
			if kind.NewList == nil {
				metadata = "\n" // reviews have no names
			}
			hub := kindtest.Decode(t, kind, gv, "apiVersion: "+m.version+"\nkind: "+m.kind+metadata+m.text)
			if !kind.Namespaced {
				hub.SetNamespace("")
			}
			if m.check != nil {
				m.check(t, hub)
			}
			if kind.Rules.PrepareForCreate != nil {
				kind.Rules.PrepareForCreate(t.Context(), hub)
			}
			if kind.Rules.Validate != nil && m.kind != "Event" {
				kindtest.Expect(t, kindtest.Messages(kind.Rules.Validate(hub)))
			}
			if version.FromHub == nil {
				return
			}
			out := version.New()
			if err := version.FromHub(hub, out); err != nil {
				t.Fatal(err)
			}
			text, err := yaml.Marshal(out)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.SplitSeq(m.shown, "\n") {
				if flow := compact(t, string(text)); !strings.Contains(flow, compact(t, line)) {
					t.Errorf("shown as %s without %s", text, line)
				}
			}
		})
	}
}

// compact is YAML as JSON without the outer braces.
func compact(t *testing.T, text string) string {
	t.Helper()
	if text == "" {
		return ""
	}
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(data), "{"), "}")
}
