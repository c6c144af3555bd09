// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/ingress/gateway"
	"kaji/internal/ingress/gateway/definition"
)

// afterStart leaves the processors to the node and the first pods: to read these
// definitions takes as long as all else that a cluster starts with.
const afterStart = time.Second

// gatewayAPI defines the kinds of the Gateway API, unless they are there, and
// makes the class kaji. It tries again until that has worked once.
func (cl *Cluster) gatewayAPI(ctx context.Context, api client.Interface) {
	select {
	case <-time.After(afterStart):
	case <-ctx.Done():
	}
	said := ""
	for delay := 100 * time.Millisecond; ctx.Err() == nil; delay = min(2*delay, time.Minute) {
		err := defineGateways(ctx, api)
		if err == nil {
			return
		}
		// The kinds are served a moment after they were defined.
		if !apierrors.IsNotFound(err) && err.Error() != said {
			said = err.Error()
			cl.c.Logger.Warn("the Gateway API cannot be set up yet, this is tried again", "err", err)
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
	}
}

func defineGateways(ctx context.Context, api client.Interface) error {
	at := client.Resource{GroupVersionResource: schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}}
	missing := map[string]bool{}
	for _, name := range definition.Names() {
		// What is there belongs to the cluster's owner, whatever its release.
		_, err := api.Get(ctx, at, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			missing[name] = true
		} else if err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		all, err := definition.Load()
		if err != nil {
			return err
		}
		for _, o := range all {
			if !missing[o.GetName()] {
				continue
			}
			if _, err := api.Create(ctx, at, "", o, metav1.CreateOptions{FieldManager: "kaji-addons"}); err != nil && !apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("%s: %w", o.GetName(), err)
			}
		}
	}
	class := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
		"metadata": map[string]any{"name": "kaji"}, "spec": map[string]any{"controllerName": string(gateway.ControllerName)}}}
	data, err := class.MarshalJSON()
	if err != nil {
		return err
	}
	force := true
	_, err = api.Patch(ctx, client.Resource{GroupVersionResource: schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gatewayclasses"}},
		"kaji", types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: "kaji-addons", Force: &force})
	return err
}
