// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"kaji/internal/controller"
)

// What the steps share: the pods of a workload, the paths, another image.
const (
	web = `
	selector: {matchLabels: {app: web}}
	template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: one}]}}
`
	apps  = "/apis/apps/v1/namespaces/default"
	batch = "/apis/batch/v1/namespaces/default"
	core  = "/api/v1/namespaces/default"
	two   = `
spec: {template: {spec: {containers: [{name: c, image: two}]}}}
`
)

// node makes a node that says it is ready.
func node(name string) string {
	return `POST /api/v1/nodes
metadata: {name: ` + name + `}
status: {conditions: [{type: Ready, status: "True", reason: KubeletReady, message: ready}]}
`
}

// scenarios are one or more for each controller.
var scenarios = map[string]scenario{
	"replicaset": {controllers: "replicaset-controller", steps: []string{
		"POST " + apps + "/replicasets\nmetadata: {name: a}\nspec:\n\treplicas: 3" + web, "live 10s",
		"PATCH " + apps + "/replicasets/a/scale\nspec: {replicas: 1}",
	}},
	"replicationcontroller": {controllers: "replicationcontroller-controller", steps: []string{
		"POST " + core + "/replicationcontrollers\nmetadata: {name: a}\nspec: {replicas: 2, selector: {app: web}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: one}]}}}", "live 10s",
		"PATCH " + core + "/replicationcontrollers/a/scale\nspec: {replicas: 0}",
	}},
	"deployment": {controllers: "deployment-controller replicaset-controller", steps: []string{
		"POST " + apps + "/deployments\nmetadata: {name: a}\nspec:\n\treplicas: 2" + web, "live 15s",
		"PATCH " + apps + "/deployments/a" + two, "live 40s",
		"PATCH " + apps + "/deployments/a/scale\nspec: {replicas: 3}",
	}},
	"deployment that recreates": {controllers: "deployment-controller replicaset-controller", steps: []string{
		"POST " + apps + "/deployments\nmetadata: {name: a}\nspec:\n\treplicas: 2\n\trevisionHistoryLimit: 0\n\tstrategy: {type: Recreate}" + web, "live 15s",
		"PATCH " + apps + "/deployments/a" + two, "live 30s",
	}},
	"statefulset": {controllers: "statefulset-controller", steps: []string{
		"POST " + apps + "/statefulsets\nmetadata: {name: a}\nspec:\n\treplicas: 2\n\tserviceName: a\n\tvolumeClaimTemplates: [{metadata: {name: v}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]\n\tpersistentVolumeClaimRetentionPolicy: {whenScaled: Delete, whenDeleted: Retain}" + web, "live 20s",
		"PATCH " + apps + "/statefulsets/a" + two, "live 30s",
		"PATCH " + apps + "/statefulsets/a/scale\nspec: {replicas: 1}", "live 20s",
	}},
	"daemonset": {controllers: "daemonset-controller", steps: []string{
		node("n1"), node("n2"),
		"POST " + apps + "/daemonsets\nmetadata: {name: a}\nspec:" + web, "live 10s",
		"PATCH " + apps + "/daemonsets/a" + two, "live 30s",
		"DELETE /api/v1/nodes/n2",
	}},
	"job": {controllers: "job-controller", steps: []string{
		"POST " + batch + "/jobs\nmetadata: {name: a}\nspec: {completions: 3, parallelism: 2, template: {metadata: {labels: {fate: ok}}, spec: {restartPolicy: Never, containers: [{name: c, image: one}]}}}", "live 20s",
	}},
	"job that fails": {controllers: "job-controller", steps: []string{
		"POST " + batch + "/jobs\nmetadata: {name: a}\nspec: {backoffLimit: 1, template: {metadata: {labels: {fate: bad}}, spec: {restartPolicy: Never, containers: [{name: c, image: one}]}}}", "live 60s",
	}},
	"job that is suspended": {controllers: "job-controller", steps: []string{
		"POST " + batch + "/jobs\nmetadata: {name: a}\nspec: {parallelism: 2, template: {spec: {restartPolicy: Never, containers: [{name: c, image: one}]}}}", "live 10s",
		"PATCH " + batch + "/jobs/a\nspec: {suspend: true}", "live 10s",
		"PATCH " + batch + "/jobs/a\nspec: {suspend: false}", "live 10s",
	}},
	"indexed job": {controllers: "job-controller", steps: []string{
		"POST " + batch + "/jobs\nmetadata: {name: a}\nspec: {completions: 2, parallelism: 2, completionMode: Indexed, backoffLimitPerIndex: 1, template: {metadata: {labels: {fate: bad}}, spec: {restartPolicy: Never, containers: [{name: c, image: one}]}}}", "live 90s",
	}},
	"cronjob": {controllers: "cronjob-controller job-controller", steps: []string{
		"POST " + batch + "/cronjobs\nmetadata: {name: a}\nspec: {schedule: '* * * * *', successfulJobsHistoryLimit: 1, jobTemplate: {spec: {template: {metadata: {labels: {fate: ok}}, spec: {restartPolicy: Never, containers: [{name: c, image: one}]}}}}}", "live 155s",
		"PATCH " + batch + "/cronjobs/a\nspec: {suspend: true}",
	}},
	"ttl after finished": {controllers: "ttl-after-finished-controller job-controller", steps: []string{
		"POST " + batch + "/jobs\nmetadata: {name: a}\nspec: {ttlSecondsAfterFinished: 20, template: {metadata: {labels: {fate: ok}}, spec: {restartPolicy: Never, containers: [{name: c, image: one}]}}}", "live 60s",
	}},
	"autoscaler": {controllers: "horizontal-pod-autoscaler-controller deployment-controller replicaset-controller", steps: []string{
		"POST " + apps + "/deployments\nmetadata: {name: a}\nspec:\n\treplicas: 1" + web, "live 10s",
		"POST /apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers\nmetadata: {name: a}\nspec: {minReplicas: 2, maxReplicas: 4, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: a}, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]}", "live 40s",
	}},
	"disruption": {controllers: "disruption-controller replicaset-controller", steps: []string{
		"POST /apis/policy/v1/namespaces/default/poddisruptionbudgets\nmetadata: {name: a}\nspec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}",
		"POST " + apps + "/replicasets\nmetadata: {name: a}\nspec:\n\treplicas: 2" + web, "live 15s",
	}},
	"endpoints": {controllers: "endpointslice-controller endpoints-controller endpointslice-mirroring-controller", steps: []string{
		node("n1"),
		"POST " + core + "/services\nmetadata: {name: a}\nspec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}",
		"POST " + core + "/services\nmetadata: {name: byhand}\nspec: {clusterIP: None, ports: [{port: 80}]}",
		"POST " + core + "/endpoints\nmetadata: {name: byhand}\nsubsets: [{addresses: [{ip: 192.0.2.1}], ports: [{port: 80}]}]",
		"POST " + core + "/pods\nmetadata: {name: p, labels: {app: web}}\nspec: {nodeName: n1, containers: [{name: c, image: one}]}",
		"PATCH " + core + "/pods/p/status\nstatus: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}", "live 10s",
		"PATCH " + core + "/endpoints/byhand\nsubsets: [{addresses: [{ip: 192.0.2.2}], ports: [{port: 80}]}]", "live 10s",
		"DELETE " + core + "/services/byhand",
	}},
	"namespace": {controllers: "namespace-controller serviceaccount-controller root-ca-certificate-publisher-controller",
		config: func(c *controller.Config) { c.RootCA = []byte("PEM") }, steps: []string{
			"POST /api/v1/namespaces\nmetadata: {name: shop}", "live 10s",
			"POST /api/v1/namespaces/shop/configmaps\nmetadata: {name: c}",
			"POST /api/v1/namespaces/shop/pods\nmetadata: {name: p}\nspec: {containers: [{name: c, image: one}]}",
			"DELETE /api/v1/namespaces/shop", "live 40s",
		}},
	"quota": {controllers: "resourcequota-controller", steps: []string{
		"POST " + core + "/resourcequotas\nmetadata: {name: q}\nspec: {hard: {pods: 5, count/configmaps: 9}}", "live 10s",
		"POST " + core + "/pods\nmetadata: {name: p}\nspec: {containers: [{name: c, image: one}]}",
		"DELETE " + core + "/pods/p", "live 10s",
		"PATCH " + core + "/resourcequotas/q\nspec: {hard: {pods: 3, services: 2}}",
	}},
	"roles": {controllers: "clusterrole-aggregation-controller", steps: []string{
		"POST /apis/rbac.authorization.k8s.io/v1/clusterroles\nmetadata: {name: all}\naggregationRule: {clusterRoleSelectors: [{matchLabels: {part: x}}]}",
		"POST /apis/rbac.authorization.k8s.io/v1/clusterroles\nmetadata: {name: one, labels: {part: x}}\nrules: [{apiGroups: [''], resources: [pods], verbs: [get]}]", "live 10s",
	}},
	"bootstrap tokens": {controllers: "bootstrap-signer-controller token-cleaner-controller", steps: []string{
		"POST /api/v1/namespaces/kube-public/configmaps\nmetadata: {name: cluster-info}\ndata: {kubeconfig: x}",
		"POST /api/v1/namespaces/kube-system/secrets\nmetadata: {name: bootstrap-token-abcdef}\ntype: bootstrap.kubernetes.io/token\nstringData: {token-id: abcdef, token-secret: 0123456789abcdef, usage-bootstrap-signing: 'true', expiration: '2000-01-01T00:01:00Z'}", "live 90s",
	}},
	"nodes": {controllers: "node-ipam-controller node-lifecycle-controller taint-eviction-controller ttl-controller pod-garbage-collector-controller",
		config: ranges, steps: slices.Concat([]string{
			node("n1"), "live 10s", node("n2"), // one after the other: each has its range
			"POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases\nmetadata: {name: n2}\nspec: {holderIdentity: n2, renewTime: '2000-01-01T00:00:00.000000Z'}",
			"POST " + core + "/pods\nmetadata: {name: p}\nspec: {nodeName: n1, terminationGracePeriodSeconds: 0, tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 30}], containers: [{name: c, image: one}]}",
			"POST " + core + "/pods\nmetadata: {name: q}\nspec: {nodeName: n1, tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists}], containers: [{name: c, image: one}]}",
		}, alive(0, 4), []string{"PATCH /api/v1/nodes/n2\nspec: {unschedulable: true}"}, alive(4, 8), []string{"DELETE /api/v1/nodes/n1"}, alive(8, 12))},
	"orphaned pods": {controllers: "pod-garbage-collector-controller", steps: []string{
		node("n1"),
		"POST " + core + "/pods\nmetadata: {name: p}\nspec: {nodeName: n1, containers: [{name: c, image: one}]}", "live 10s",
		"DELETE /api/v1/nodes/n1", "live 100s",
	}},
	"garbage": {controllers: "garbage-collector-controller deployment-controller replicaset-controller", steps: []string{
		"POST " + apps + "/deployments\nmetadata: {name: a}\nspec:\n\treplicas: 2" + web, "live 10s",
		"DELETE " + apps + "/deployments/a", "live 20s",
		"POST " + apps + "/deployments\nmetadata: {name: b}\nspec:\n\treplicas: 1" + web, "live 10s",
		"DELETE " + apps + "/deployments/b\npropagationPolicy: Foreground", "live 20s",
		"POST " + apps + "/deployments\nmetadata: {name: c}\nspec:\n\treplicas: 1" + web, "live 10s",
		"DELETE " + apps + "/deployments/c\npropagationPolicy: Orphan", "live 20s",
	}},
	"volumes": {controllers: "persistentvolume-binder-controller persistentvolumeclaim-protection-controller persistentvolume-protection-controller ephemeral-volume-controller persistentvolume-attach-detach-controller persistentvolume-expander-controller", steps: []string{
		"POST /api/v1/persistentvolumes\nmetadata: {name: v, finalizers: [kubernetes.io/pv-protection]}\nspec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], csi: {driver: d, volumeHandle: h}}",
		node("n1"),
		"POST " + core + "/persistentvolumeclaims\nmetadata: {name: c, finalizers: [kubernetes.io/pvc-protection]}\nspec: {storageClassName: '', accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}", "live 20s",
		"POST " + core + "/pods\nmetadata: {name: p}\nspec: {nodeName: n1, volumes: [{name: v, persistentVolumeClaim: {claimName: c}}, {name: e, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}}], containers: [{name: c, image: one}]}", "live 20s",
		"DELETE " + core + "/pods/p\ngracePeriodSeconds: 0",
		"DELETE " + core + "/persistentvolumeclaims/c", "live 40s",
	}},
	"classes of volumes": {controllers: "volumeattributesclass-protection-controller", steps: []string{
		"POST /apis/storage.k8s.io/v1/volumeattributesclasses\nmetadata: {name: fast}\ndriverName: d\nparameters: {a: b}", "live 10s",
		"DELETE /apis/storage.k8s.io/v1/volumeattributesclasses/fast",
	}},
	"claims of devices": {controllers: "resourceclaim-controller", steps: []string{
		"POST /apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates\nmetadata: {name: t}\nspec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: d}}]}}}",
		"POST " + core + "/pods\nmetadata: {name: p, labels: {fate: none}}\nspec: {resourceClaims: [{name: c, resourceClaimTemplateName: t}], containers: [{name: c, image: one, resources: {claims: [{name: c}]}}]}", "live 10s",
		"PATCH " + core + "/pods/p/status\nstatus: {phase: Succeeded}", "live 20s",
	}},
	"groups of pods": {controllers: "podgroup-protection-controller", steps: []string{
		"POST /apis/scheduling.k8s.io/v1beta1/namespaces/default/podgroups\nmetadata: {name: g}\nspec: {schedulingPolicy: {basic: {}}}",
		"POST " + core + "/pods\nmetadata: {name: p}\nspec: {schedulingGroup: {podGroupName: g}, containers: [{name: c, image: one}]}", "live 10s",
		"DELETE /apis/scheduling.k8s.io/v1beta1/namespaces/default/podgroups/g", "live 10s",
		"DELETE " + core + "/pods/p",
	}},
	"ranges of services": {controllers: "service-cidr-controller", steps: []string{
		"POST /apis/networking.k8s.io/v1/servicecidrs\nmetadata: {name: a}\nspec: {cidrs: [10.97.0.0/24]}", "live 10s",
		"DELETE /apis/networking.k8s.io/v1/servicecidrs/a", "live 20s",
	}},
	"trust": {controllers: "kube-apiserver-serving-clustertrustbundle-publisher-controller root-ca-certificate-publisher-controller",
		config: func(c *controller.Config) { c.RootCA = []byte("PEM") }, steps: []string{"live 10s"}},
}

// alive lets twenty seconds go by after each of some numbers, in which of all
// nodes only n2 renews its lease.
func alive(from, to int) (steps []string) {
	for i := from; i < to; i++ {
		steps = append(steps, fmt.Sprintf("PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2\nspec: {renewTime: '2000-01-01T00:00:%02d.000001Z'}", i), "live 20s")
	}
	return steps
}

// ranges gives nodes their parts, and loses patience with them after a minute.
func ranges(c *controller.Config) {
	c.ClusterCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10::/56")}
	c.Nodes.MonitorGrace = time.Minute
}
