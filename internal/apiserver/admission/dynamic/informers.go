// SPDX-License-Identifier: Apache-2.0

package dynamic

import (
	"reflect"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	admissioninformers "k8s.io/client-go/informers/admissionregistration"
	admissioninformersv1 "k8s.io/client-go/informers/admissionregistration/v1"
	coreinformers "k8s.io/client-go/informers/core"
	coreinformersv1 "k8s.io/client-go/informers/core/v1"
	admissionlistersv1 "k8s.io/client-go/listers/admissionregistration/v1"
	corelistersv1 "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"kaji/internal/client"
)

var namespaceResource = corev1.SchemeGroupVersion.WithResource("namespaces")

// factory is the part of a SharedInformerFactory that the plug-ins use, over
// the client's informers: they hold the server's own objects.
type factory struct {
	informers.SharedInformerFactory
	client client.Interface
}

func (f *factory) informer(gvr schema.GroupVersionResource) cache.SharedIndexInformer {
	return f.client.Informer(gvr, client.InformerOptions{})
}

// Start implements informers.SharedInformerFactory: the client starts them.
func (f *factory) Start(<-chan struct{}) {}

// WaitForCacheSync implements informers.SharedInformerFactory.
func (f *factory) WaitForCacheSync(<-chan struct{}) map[reflect.Type]bool { return nil }

// ForResource implements informers.SharedInformerFactory; every resource has
// an informer.
func (f *factory) ForResource(gvr schema.GroupVersionResource) (informers.GenericInformer, error) {
	return generic{f.informer(gvr), gvr.GroupResource()}, nil
}

// Core implements informers.SharedInformerFactory.
func (f *factory) Core() coreinformers.Interface { return core{f: f} }

// Admissionregistration implements informers.SharedInformerFactory.
func (f *factory) Admissionregistration() admissioninformers.Interface { return registration{f: f} }

// generic is an informer of any resource.
type generic struct {
	informer cache.SharedIndexInformer
	resource schema.GroupResource
}

// Informer implements informers.GenericInformer.
func (g generic) Informer() cache.SharedIndexInformer { return g.informer }

// Lister implements informers.GenericInformer.
func (g generic) Lister() cache.GenericLister {
	return cache.NewGenericLister(g.informer.GetIndexer(), g.resource)
}

type core struct {
	coreinformers.Interface
	f *factory
}

// V1 implements coreinformers.Interface.
func (c core) V1() coreinformersv1.Interface { return coreV1Informers{f: c.f} }

type coreV1Informers struct {
	coreinformersv1.Interface
	f *factory
}

// Namespaces implements coreinformersv1.Interface.
func (c coreV1Informers) Namespaces() coreinformersv1.TypedNamespaceInformer {
	return typed[*corev1.Namespace, corelistersv1.NamespaceLister, coreinformersv1.NamespaceIndexInformer]{
		c.f.informer(namespaceResource), corelistersv1.NewNamespaceLister,
	}
}

// typed is an informer of one Go type, with its lister.
type typed[T cache.Object, L, I any] struct {
	informer cache.SharedIndexInformer
	lister   func(cache.Indexer) L
}

func (t typed[T, L, I]) Informer() cache.SharedIndexInformer { return t.informer }
func (t typed[T, L, I]) Lister() L                           { return t.lister(t.informer.GetIndexer()) }

// TypedInformer returns the informer under the name that client-go has for it.
func (t typed[T, L, I]) TypedInformer() I {
	return any(cache.NewTypedSharedIndexInformer[T](t.informer)).(I)
}

type registration struct {
	admissioninformers.Interface
	f *factory
}

// V1 implements admissioninformers.Interface.
func (r registration) V1() admissioninformersv1.Interface { return registrationV1{f: r.f} }

type registrationV1 struct {
	admissioninformersv1.Interface
	f *factory
}

func (r registrationV1) informer(resource string) cache.SharedIndexInformer {
	return r.f.informer(admissionregistrationv1.SchemeGroupVersion.WithResource(resource))
}

// MutatingWebhookConfigurations implements admissioninformersv1.Interface.
func (r registrationV1) MutatingWebhookConfigurations() admissioninformersv1.TypedMutatingWebhookConfigurationInformer {
	return typed[*admissionregistrationv1.MutatingWebhookConfiguration, admissionlistersv1.MutatingWebhookConfigurationLister, admissioninformersv1.MutatingWebhookConfigurationIndexInformer]{
		r.informer("mutatingwebhookconfigurations"), admissionlistersv1.NewMutatingWebhookConfigurationLister,
	}
}

// ValidatingWebhookConfigurations implements admissioninformersv1.Interface.
func (r registrationV1) ValidatingWebhookConfigurations() admissioninformersv1.TypedValidatingWebhookConfigurationInformer {
	return typed[*admissionregistrationv1.ValidatingWebhookConfiguration, admissionlistersv1.ValidatingWebhookConfigurationLister, admissioninformersv1.ValidatingWebhookConfigurationIndexInformer]{
		r.informer("validatingwebhookconfigurations"), admissionlistersv1.NewValidatingWebhookConfigurationLister,
	}
}

// ValidatingAdmissionPolicies implements admissioninformersv1.Interface.
func (r registrationV1) ValidatingAdmissionPolicies() admissioninformersv1.TypedValidatingAdmissionPolicyInformer {
	return typed[*admissionregistrationv1.ValidatingAdmissionPolicy, admissionlistersv1.ValidatingAdmissionPolicyLister, admissioninformersv1.ValidatingAdmissionPolicyIndexInformer]{
		r.informer("validatingadmissionpolicies"), admissionlistersv1.NewValidatingAdmissionPolicyLister,
	}
}

// ValidatingAdmissionPolicyBindings implements admissioninformersv1.Interface.
func (r registrationV1) ValidatingAdmissionPolicyBindings() admissioninformersv1.TypedValidatingAdmissionPolicyBindingInformer {
	return typed[*admissionregistrationv1.ValidatingAdmissionPolicyBinding, admissionlistersv1.ValidatingAdmissionPolicyBindingLister, admissioninformersv1.ValidatingAdmissionPolicyBindingIndexInformer]{
		r.informer("validatingadmissionpolicybindings"), admissionlistersv1.NewValidatingAdmissionPolicyBindingLister,
	}
}

// MutatingAdmissionPolicies implements admissioninformersv1.Interface.
func (r registrationV1) MutatingAdmissionPolicies() admissioninformersv1.TypedMutatingAdmissionPolicyInformer {
	return typed[*admissionregistrationv1.MutatingAdmissionPolicy, admissionlistersv1.MutatingAdmissionPolicyLister, admissioninformersv1.MutatingAdmissionPolicyIndexInformer]{
		r.informer("mutatingadmissionpolicies"), admissionlistersv1.NewMutatingAdmissionPolicyLister,
	}
}

// MutatingAdmissionPolicyBindings implements admissioninformersv1.Interface.
func (r registrationV1) MutatingAdmissionPolicyBindings() admissioninformersv1.TypedMutatingAdmissionPolicyBindingInformer {
	return typed[*admissionregistrationv1.MutatingAdmissionPolicyBinding, admissionlistersv1.MutatingAdmissionPolicyBindingLister, admissioninformersv1.MutatingAdmissionPolicyBindingIndexInformer]{
		r.informer("mutatingadmissionpolicybindings"), admissionlistersv1.NewMutatingAdmissionPolicyBindingLister,
	}
}
