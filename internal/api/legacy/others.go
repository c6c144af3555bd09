// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	admissionv1beta1 "k8s.io/api/admissionregistration/v1beta1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	coordinationv1 "k8s.io/api/coordination/v1"
	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	corev1 "k8s.io/api/core/v1"
	eventsv1beta1 "k8s.io/api/events/v1beta1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	flowcontrolv1beta1 "k8s.io/api/flowcontrol/v1beta1"
	flowcontrolv1beta2 "k8s.io/api/flowcontrol/v1beta2"
	flowcontrolv1beta3 "k8s.io/api/flowcontrol/v1beta3"
	nodev1 "k8s.io/api/node/v1"
	nodev1alpha1 "k8s.io/api/node/v1alpha1"
	nodev1beta1 "k8s.io/api/node/v1beta1"
	policyv1 "k8s.io/api/policy/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	rbacv1 "k8s.io/api/rbac/v1"
	rbacv1alpha1 "k8s.io/api/rbac/v1alpha1"
	rbacv1beta1 "k8s.io/api/rbac/v1beta1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	storagev1beta1 "k8s.io/api/storage/v1beta1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistrationv1beta1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1beta1"

	"kaji/internal/api"
	"kaji/internal/api/autoscaling"
)

func policies() []removed {
	rbac, rbacAlpha := rbacv1beta1.SchemeGroupVersion, rbacv1alpha1.SchemeGroupVersion
	return []removed{
		{policyv1.Resource("poddisruptionbudgets"), versions(
			like[policyv1beta1.PodDisruptionBudget, policyv1beta1.PodDisruptionBudgetList](policyv1beta1.SchemeGroupVersion, nil, nil),
		)},
		{rbacv1.Resource("roles"), versions(
			like[rbacv1beta1.Role, rbacv1beta1.RoleList](rbac, nil, nil),
			like[rbacv1alpha1.Role, rbacv1alpha1.RoleList](rbacAlpha, nil, nil),
		)},
		{rbacv1.Resource("clusterroles"), versions(
			like[rbacv1beta1.ClusterRole, rbacv1beta1.ClusterRoleList](rbac, nil, nil),
			like[rbacv1alpha1.ClusterRole, rbacv1alpha1.ClusterRoleList](rbacAlpha, nil, nil),
		)},
		{rbacv1.Resource("rolebindings"), versions(
			like[rbacv1beta1.RoleBinding, rbacv1beta1.RoleBindingList](rbac, nil, nil),
			like[rbacv1alpha1.RoleBinding, rbacv1alpha1.RoleBindingList](rbacAlpha, subjectsUp, subjectsDown),
		)},
		{rbacv1.Resource("clusterrolebindings"), versions(
			like[rbacv1beta1.ClusterRoleBinding, rbacv1beta1.ClusterRoleBindingList](rbac, nil, nil),
			like[rbacv1alpha1.ClusterRoleBinding, rbacv1alpha1.ClusterRoleBindingList](rbacAlpha, subjectsUp, subjectsDown),
		)},
	}
}

// subjectsUp gives subjects, which had a version, the group of it.
func subjectsUp(object map[string]any) {
	each(object, "subjects", func(subject map[string]any) {
		version, _ := subject["apiVersion"].(string)
		delete(subject, "apiVersion")
		if gv, err := schema.ParseGroupVersion(version); err == nil && gv.Group != "" {
			subject["apiGroup"] = gv.Group
		}
	})
}

func subjectsDown(object map[string]any) {
	each(object, "subjects", func(subject map[string]any) {
		if subject["apiGroup"] == rbacv1.GroupName {
			subject["apiVersion"] = rbacv1alpha1.SchemeGroupVersion.String()
		}
		delete(subject, "apiGroup")
	})
}

func extension() []removed {
	hooks := admissionv1beta1.SchemeGroupVersion
	return []removed{
		{admissionv1.Resource("mutatingwebhookconfigurations"), versions(
			like[admissionv1beta1.MutatingWebhookConfiguration, admissionv1beta1.MutatingWebhookConfigurationList](hooks, webhooksUp, nil),
		)},
		{admissionv1.Resource("validatingwebhookconfigurations"), versions(
			like[admissionv1beta1.ValidatingWebhookConfiguration, admissionv1beta1.ValidatingWebhookConfigurationList](hooks, webhooksUp, nil),
		)},
		{apiextensionsv1.Resource("customresourcedefinitions"), versions(definition())},
		{apiregistrationv1.Resource("apiservices"), versions(
			like[apiregistrationv1beta1.APIService, apiregistrationv1beta1.APIServiceList](apiregistrationv1beta1.SchemeGroupVersion, nil, nil),
		)},
		{certificatesv1.Resource("certificatesigningrequests"), versions(
			like[certificatesv1beta1.CertificateSigningRequest, certificatesv1beta1.CertificateSigningRequestList](certificatesv1beta1.SchemeGroupVersion, requestUp, nil),
		)},
	}
}

// webhooksUp fills what version v1 demands. A webhook whose side effects nobody
// declared could not be called for dry runs; in version v1 it must have none.
func webhooksUp(object map[string]any) {
	each(object, "webhooks", func(hook map[string]any) {
		setDefault(hook, "failurePolicy", "Ignore")
		setDefault(hook, "matchPolicy", "Exact")
		setDefault(hook, "timeoutSeconds", 30)
		setDefault(hook, "admissionReviewVersions", []any{"v1beta1"})
		switch hook["sideEffects"] {
		case "None", "NoneOnDryRun":
		default:
			hook["sideEffects"] = "None"
		}
	})
}

// requestUp names the signer that certificates without one came from.
func requestUp(object map[string]any) {
	spec := at(object, "spec")
	setDefault(spec, "signerName", certificatesv1beta1.LegacyUnknownSignerName)
	setDefault(spec, "usages", []any{"digital signature", "key encipherment"})
	each(at(object, "status"), "conditions", func(c map[string]any) { setDefault(c, "status", "True") })
}

func others() []removed {
	storage := storagev1beta1.SchemeGroupVersion
	return []removed{
		{corev1.Resource("events"), versions(
			like[eventsv1beta1.Event, eventsv1beta1.EventList](eventsv1beta1.SchemeGroupVersion, eventUp, eventDown),
		)},
		{storagev1.Resource("storageclasses"), versions(like[storagev1beta1.StorageClass, storagev1beta1.StorageClassList](storage, nil, nil))},
		{storagev1.Resource("volumeattachments"), versions(like[storagev1beta1.VolumeAttachment, storagev1beta1.VolumeAttachmentList](storage, nil, nil))},
		{storagev1.Resource("csidrivers"), versions(like[storagev1beta1.CSIDriver, storagev1beta1.CSIDriverList](storage, nil, nil))},
		{storagev1.Resource("csinodes"), versions(like[storagev1beta1.CSINode, storagev1beta1.CSINodeList](storage, nil, nil))},
		{storagev1.Resource("csistoragecapacities"), versions(like[storagev1beta1.CSIStorageCapacity, storagev1beta1.CSIStorageCapacityList](storage, nil, nil))},
		{coordinationv1.Resource("leases"), versions(
			like[coordinationv1beta1.Lease, coordinationv1beta1.LeaseList](coordinationv1beta1.SchemeGroupVersion, nil, nil),
		)},
		{schedulingv1.Resource("priorityclasses"), versions(
			like[schedulingv1beta1.PriorityClass, schedulingv1beta1.PriorityClassList](schedulingv1beta1.SchemeGroupVersion, nil, nil),
		)},
		{nodev1.Resource("runtimeclasses"), versions(
			like[nodev1beta1.RuntimeClass, nodev1beta1.RuntimeClassList](nodev1beta1.SchemeGroupVersion, nil, nil),
			like[nodev1alpha1.RuntimeClass, nodev1alpha1.RuntimeClassList](nodev1alpha1.SchemeGroupVersion, runtimeClassUp, runtimeClassDown),
		)},
		{autoscalingv2.Resource("horizontalpodautoscalers"), versions(api.Version{
			// The version differs from v2 in nothing but its name.
			GroupVersion: schema.GroupVersion{Group: autoscalingv2.GroupName, Version: "v2beta2"},
			New:          api.New[autoscalingv2.HorizontalPodAutoscaler], NewList: api.NewList[autoscalingv2.HorizontalPodAutoscalerList],
		}, autoscaling.V2Beta1())},
		{flowcontrolv1.Resource("flowschemas"), versions(
			like[flowcontrolv1beta1.FlowSchema, flowcontrolv1beta1.FlowSchemaList](flowcontrolv1beta1.SchemeGroupVersion, nil, nil),
			like[flowcontrolv1beta2.FlowSchema, flowcontrolv1beta2.FlowSchemaList](flowcontrolv1beta2.SchemeGroupVersion, nil, nil),
			like[flowcontrolv1beta3.FlowSchema, flowcontrolv1beta3.FlowSchemaList](flowcontrolv1beta3.SchemeGroupVersion, nil, nil),
		)},
		{flowcontrolv1.Resource("prioritylevelconfigurations"), versions(
			like[flowcontrolv1beta1.PriorityLevelConfiguration, flowcontrolv1beta1.PriorityLevelConfigurationList](flowcontrolv1beta1.SchemeGroupVersion, sharesUp, sharesDown),
			like[flowcontrolv1beta2.PriorityLevelConfiguration, flowcontrolv1beta2.PriorityLevelConfigurationList](flowcontrolv1beta2.SchemeGroupVersion, sharesUp, sharesDown),
			like[flowcontrolv1beta3.PriorityLevelConfiguration, flowcontrolv1beta3.PriorityLevelConfigurationList](flowcontrolv1beta3.SchemeGroupVersion, nil, nil),
		)},
	}
}

// runtimeClassFields are those that version v1alpha1 had in a spec.
var runtimeClassFields = [][2]string{{"runtimeHandler", "handler"}, {"overhead", "overhead"}, {"scheduling", "scheduling"}}

func runtimeClassUp(object map[string]any) {
	spec := at(object, "spec")
	delete(object, "spec")
	for _, f := range runtimeClassFields {
		if v, ok := spec[f[0]]; ok {
			object[f[1]] = v
		}
	}
}

func runtimeClassDown(object map[string]any) {
	spec := map[string]any{}
	for _, f := range runtimeClassFields {
		if v, ok := object[f[1]]; ok {
			delete(object, f[1])
			spec[f[0]] = v
		}
	}
	object["spec"] = spec
}

// eventFields are what core calls the fields of the other group's events.
var eventFields = [][2]string{
	{"regarding", "involvedObject"}, {"note", "message"}, {"reportingController", "reportingComponent"}, {"deprecatedSource", "source"},
	{"deprecatedFirstTimestamp", "firstTimestamp"}, {"deprecatedLastTimestamp", "lastTimestamp"}, {"deprecatedCount", "count"},
}

func eventUp(object map[string]any) {
	for _, f := range eventFields {
		move(object, f[0], f[1])
	}
}

func eventDown(object map[string]any) {
	for _, f := range eventFields {
		move(object, f[1], f[0])
	}
}

const shares, sharesBefore = "nominalConcurrencyShares", "assuredConcurrencyShares"

func sharesUp(object map[string]any) { move(at(object, "spec", "limited"), sharesBefore, shares) }

func sharesDown(object map[string]any) { move(at(object, "spec", "limited"), shares, sharesBefore) }
