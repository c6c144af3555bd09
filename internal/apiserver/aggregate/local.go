// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"kaji/internal/api"
	"kaji/internal/apiserver/discovery"
	"kaji/internal/client"
)

// The label of APIServices that are kept here, and its values: those of
// built-in versions, and those that come and go with custom resources.
const (
	managed        = "kube-aggregator.kubernetes.io/automanaged"
	managedOnStart = "onstart"
	managedAlways  = "true"
)

var resource = client.Resource{GroupVersionResource: apiregistrationv1.SchemeGroupVersion.WithResource("apiservices")}

// syncLocal keeps one APIService a version that is served here. It is false
// when something is to be tried again.
func (a *Aggregator) syncLocal(ctx context.Context, kinds []*api.Kind) bool {
	wanted := map[string]*apiregistrationv1.APIService{}
	for _, kind := range kinds {
		for i := range kind.Versions {
			// The group of the APIServices themselves has none, as upstream.
			if v := &kind.Versions[i]; !v.Unserved && v.GroupVersion.Group != apiregistrationv1.GroupName {
				s := local(v.GroupVersion, kind.Custom)
				wanted[s.Name] = s
			}
		}
	}
	at, err := a.cfg.Cache.Snapshot(ctx, a.cfg.Kind)
	if err != nil {
		return false
	}
	ok := true
	report := func(what string, err error) {
		if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			a.log.Error("cannot keep a local APIService", "name", what, "err", err)
			ok = false
		}
	}
	for e := range at.All("", "") {
		s := e.Object.(*apiregistrationv1.APIService)
		if _, keep := wanted[s.Name]; keep {
			delete(wanted, s.Name) // as it is: others may have taken it over
		} else if s.Labels[managed] != "" && s.Spec.Service == nil {
			report(s.Name, a.cfg.Client.Delete(ctx, resource, s.Name, metav1.DeleteOptions{}))
		}
	}
	for name, s := range wanted {
		_, err := a.cfg.Client.Create(ctx, resource, "", s, metav1.CreateOptions{FieldManager: "kube-apiserver"})
		report(name, err)
	}
	return ok
}

func local(gv schema.GroupVersion, custom bool) *apiregistrationv1.APIService {
	group, own := discovery.Priority(gv)
	label := managedOnStart
	if custom {
		label = managedAlways
	}
	return &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: gv.Version + "." + gv.Group, Labels: map[string]string{managed: label}},
		Spec: apiregistrationv1.APIServiceSpec{
			Group: gv.Group, Version: gv.Version, GroupPriorityMinimum: group, VersionPriority: own,
		},
	}
}
