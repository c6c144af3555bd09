// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"math"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	appsv1beta2 "k8s.io/api/apps/v1beta2"
	batchv1 "k8s.io/api/batch/v1"
	batchv1beta1 "k8s.io/api/batch/v1beta1"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
)

func workloads() []removed {
	apps1, apps2, extensions := appsv1beta1.SchemeGroupVersion, appsv1beta2.SchemeGroupVersion, extensionsv1beta1.SchemeGroupVersion
	return []removed{
		{appsv1.Resource("deployments"), versions(
			like[extensionsv1beta1.Deployment, extensionsv1beta1.DeploymentList](extensions, extensionsDeployment, nil),
			like[appsv1beta1.Deployment, appsv1beta1.DeploymentList](apps1, betaDeployment, nil),
			like[appsv1beta2.Deployment, appsv1beta2.DeploymentList](apps2, nil, nil),
		)},
		{appsv1.Resource("replicasets"), versions(
			like[extensionsv1beta1.ReplicaSet, extensionsv1beta1.ReplicaSetList](extensions, selectPods, nil),
			like[appsv1beta2.ReplicaSet, appsv1beta2.ReplicaSetList](apps2, nil, nil),
		)},
		{appsv1.Resource("daemonsets"), versions(
			like[extensionsv1beta1.DaemonSet, extensionsv1beta1.DaemonSetList](extensions, extensionsDaemonSet, showTemplateGeneration),
			like[appsv1beta2.DaemonSet, appsv1beta2.DaemonSetList](apps2, nil, nil),
		)},
		{appsv1.Resource("statefulsets"), versions(
			like[appsv1beta1.StatefulSet, appsv1beta1.StatefulSetList](apps1, betaStatefulSet, nil),
			like[appsv1beta2.StatefulSet, appsv1beta2.StatefulSetList](apps2, nil, nil),
		)},
		{appsv1.Resource("controllerrevisions"), versions(
			like[appsv1beta1.ControllerRevision, appsv1beta1.ControllerRevisionList](apps1, nil, nil),
			like[appsv1beta2.ControllerRevision, appsv1beta2.ControllerRevisionList](apps2, nil, nil),
		)},
		{batchv1.Resource("cronjobs"), versions(
			like[batchv1beta1.CronJob, batchv1beta1.CronJobList](batchv1beta1.SchemeGroupVersion, nil, nil),
		)},
	}
}

// selectPods fills the selector and the labels, as these versions did, from the
// labels of the pod template.
func selectPods(object map[string]any) {
	labels := at(object, "spec", "template", "metadata", "labels")
	if len(labels) == 0 {
		return
	}
	setDefault(at(object, "spec"), "selector", map[string]any{"matchLabels": labels})
	setDefault(at(object, "metadata"), "labels", labels)
}

func extensionsDeployment(object map[string]any) {
	selectPods(object)
	spec := at(object, "spec")
	setDefault(spec, "revisionHistoryLimit", math.MaxInt32)
	setDefault(spec, "progressDeadlineSeconds", math.MaxInt32)
	rollOneByOne(spec)
}

func betaDeployment(object map[string]any) {
	selectPods(object)
	spec := at(object, "spec")
	setDefault(spec, "revisionHistoryLimit", 2)
}

// rollOneByOne fills the strategy as extensions/v1beta1 did.
func rollOneByOne(spec map[string]any) {
	if spec == nil {
		return
	}
	strategy := at(spec, "strategy")
	if strategy == nil {
		strategy = map[string]any{}
		spec["strategy"] = strategy
	}
	setDefault(strategy, "type", "RollingUpdate")
	if strategy["type"] != "RollingUpdate" {
		return
	}
	setDefault(strategy, "rollingUpdate", map[string]any{})
	rolling := at(strategy, "rollingUpdate")
	setDefault(rolling, "maxUnavailable", 1)
	setDefault(rolling, "maxSurge", 1)
}

func extensionsDaemonSet(object map[string]any) {
	selectPods(object)
	spec := at(object, "spec")
	if spec == nil {
		return
	}
	if strategy := at(spec, "updateStrategy"); strategy == nil {
		spec["updateStrategy"] = map[string]any{"type": "OnDelete"}
	} else {
		setDefault(strategy, "type", "OnDelete")
	}
	if n, ok := spec["templateGeneration"].(float64); ok && n > 0 {
		setDefault(at(object, "metadata"), "annotations", map[string]any{})
		at(object, "metadata", "annotations")[appsv1.DeprecatedTemplateGeneration] = strconv.FormatInt(int64(n), 10)
	}
}

// showTemplateGeneration puts the annotation into the field it once was.
func showTemplateGeneration(object map[string]any) {
	text, _ := at(object, "metadata", "annotations")[appsv1.DeprecatedTemplateGeneration].(string)
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		delete(at(object, "metadata", "annotations"), appsv1.DeprecatedTemplateGeneration)
		if spec := at(object, "spec"); spec != nil {
			spec["templateGeneration"] = n
		}
	}
}

func betaStatefulSet(object map[string]any) {
	selectPods(object)
	if spec := at(object, "spec"); spec != nil && spec["updateStrategy"] == nil {
		spec["updateStrategy"] = map[string]any{"type": "OnDelete"}
	} else {
		setDefault(at(spec, "updateStrategy"), "type", "OnDelete")
	}
}
