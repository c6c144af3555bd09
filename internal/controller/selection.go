// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"slices"
	"strings"
)

// onDemand are controllers that run only when they are named.
var onDemand = map[string]bool{"podgroup-protection-controller": true, "bootstrap-signer-controller": true, "token-cleaner-controller": true, "selinux-warning-controller": true}

// elsewhere are names of upstream's controllers that may be selected although
// nothing of that name runs here: upstream starts them only with features that
// are off by default, or only when they are named, or nobody does their work yet.
var elsewhere = strings.Fields(`
	resourcepoolstatusrequest-controller
	selinux-warning-controller
	storageversion-garbage-collector-controller
`)

// former maps the names that upstream's controllers once had, and that still work.
var former = map[string]string{
	"attachdetach": "persistentvolume-attach-detach-controller", "bootstrapsigner": "bootstrap-signer-controller",
	"cloud-node": "cloud-node-controller", "cloud-node-lifecycle": "cloud-node-lifecycle-controller", "clusterrole-aggregation": "clusterrole-aggregation-controller",
	"cronjob": "cronjob-controller", "csrapproving": "certificatesigningrequest-approving-controller",
	"csrcleaner": "certificatesigningrequest-cleaner-controller", "csrsigning": "certificatesigningrequest-signing-controller",
	"daemonset": "daemonset-controller", "deployment": "deployment-controller", "disruption": "disruption-controller",
	"endpoint": "endpoints-controller", "endpointslice": "endpointslice-controller", "endpointslicemirroring": "endpointslice-mirroring-controller",
	"ephemeral-volume": "ephemeral-volume-controller", "garbagecollector": "garbage-collector-controller",
	"horizontalpodautoscaling": "horizontal-pod-autoscaler-controller", "job": "job-controller",
	"legacy-service-account-token-cleaner": "legacy-serviceaccount-token-cleaner-controller", "namespace": "namespace-controller",
	"nodeipam": "node-ipam-controller", "nodelifecycle": "node-lifecycle-controller", "persistentvolume-binder": "persistentvolume-binder-controller",
	"persistentvolume-expander": "persistentvolume-expander-controller", "podgc": "pod-garbage-collector-controller",
	"pv-protection": "persistentvolume-protection-controller", "pvc-protection": "persistentvolumeclaim-protection-controller",
	"replicaset": "replicaset-controller", "replicationcontroller": "replicationcontroller-controller",
	"resource-claim-controller": "resourceclaim-controller", "resourcequota": "resourcequota-controller",
	"root-ca-cert-publisher": "root-ca-certificate-publisher-controller", "route": "node-route-controller", "service": "service-lb-controller",
	"serviceaccount": "serviceaccount-controller", "serviceaccount-token": "serviceaccount-token-controller", "statefulset": "statefulset-controller",
	"storage-version-gc": "storageversion-garbage-collector-controller", "tokencleaner": "token-cleaner-controller", "ttl": "ttl-controller",
	"ttl-after-finished": "ttl-after-finished-controller",
}

// selection says what runs. Of the words about one controller the first counts,
// then "*".
type selection struct {
	all bool
	run map[string]bool
}

func newSelection(words []string) (selection, error) {
	s := selection{all: len(words) == 0, run: map[string]bool{}}
	known := map[string]bool{}
	for _, e := range append(slices.Clip(list), cloudList...) {
		known[e.name] = true
	}
	for _, name := range elsewhere {
		known[name] = true
	}
	for _, word := range words {
		if word == "*" {
			s.all = true
			continue
		}
		name, off := strings.CutPrefix(word, "-")
		if now := former[name]; now != "" {
			name = now
		}
		if !known[name] {
			return s, fmt.Errorf("%q is not in the list of known controllers", name)
		}
		if _, said := s.run[name]; !said {
			s.run[name] = !off
		}
	}
	return s, nil
}

func (s selection) has(name string) bool {
	if run, said := s.run[name]; said {
		return run
	}
	return s.all && !onDemand[name]
}
