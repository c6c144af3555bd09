// SPDX-License-Identifier: Apache-2.0

// Package api says what a kind is: everything the API machine knows about one
// resource, as a value. Its children hold one file per built-in kind, package
// catalog lists them all, and a CustomResourceDefinition builds the same value
// at run time.
//
// The API server's machine is written once over Kind. Nothing here opens a
// connection, reads the store or keeps state; rules that need the state of the
// cluster (allocating an address, a quota) are the API server's admission and
// object layers.
package api

import (
	"context"
	"fmt"
	"iter"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Object is an API object with metadata. An object that was stored or read
// from a cache is shared and must never be modified; copy it first.
type Object interface {
	metav1.Object
	runtime.Object
}

// Kind is one stored resource with all versions it is served in. The hub is
// the Go type all rules are written over: the richest external version; there
// are no internal types. A Kind is immutable once it is served.
type Kind struct {
	// Group is the group of the hub, empty for core.
	Group string
	// Name is the kind, such as "Deployment".
	Name string
	// Resource is the plural in URLs, such as "deployments".
	Resource string
	// Singular is the singular name that discovery shows, such as "deployment".
	Singular string
	// ShortNames and Categories are shown by discovery.
	ShortNames, Categories []string
	// Namespaced says whether objects live in a namespace.
	Namespaced bool
	// Verbs are the verbs served; nil means all of create, delete,
	// deletecollection, get, list, patch, update, watch.
	Verbs []string
	// Versions lists the served versions, the preferred one first. Versions of
	// other groups that share this kind's storage (events.k8s.io and core) are
	// listed too.
	Versions []Version
	// Storage is the version objects are stored in; it is one of Versions.
	Storage schema.GroupVersion
	// Prefix is the directory of the store, as upstream lays it out, such as
	// "/registry/deployments"; objects are at Prefix/namespace/name.
	Prefix string
	// New returns an empty hub object, NewList an empty list of the hub.
	New     func() Object
	NewList func() runtime.Object

	// Rules say how objects of this kind are created, changed and shown.
	Rules Rules
	// Status, when set, serves the subresource "status".
	Status *Subresource
	// Scale, when set, serves the subresource "scale".
	Scale *Scale
	// Subresources are further views of the whole object, such as
	// "ephemeralcontainers", "approval" or "finalize".
	Subresources []Subresource

	// AllowCreateOnUpdate lets PUT create an absent object.
	AllowCreateOnUpdate bool
	// AllowUnconditionalUpdate accepts an update without resourceVersion.
	AllowUnconditionalUpdate bool
	// GarbageCollection says what becomes of dependents when a deletion does
	// not say; the zero value deletes them in the background.
	GarbageCollection GarbageCollection
	// OrphanWarning is sent when a deletion that does not say leaves
	// dependents behind.
	OrphanWarning string
	// ReturnDeletedObject answers a deletion with the object, not a Status.
	ReturnDeletedObject bool
	// ResetFields are the dotted paths that a main-resource write never owns,
	// such as "status".
	ResetFields []string
	// FieldAnnotation, when set, is an annotation that stands for a field of an
	// older version: metadata shown on its own is without it.
	FieldAnnotation string
	// OwnMetadata says that the Rules judge metadata themselves where it matters;
	// the machine then judges it only when they found nothing.
	OwnMetadata bool
	// PlainFinalizers accepts a finalizer without a domain that is not one of
	// Kubernetes' own.
	PlainFinalizers bool
	// RepeatsErrors tells an error as often as it was found, as the reference
	// does for kinds without declared rules.
	RepeatsErrors bool
	// IndexedFields are selectable fields that the cache keeps an index of,
	// such as "spec.nodeName" of pods.
	IndexedFields []string
	// Custom marks a kind built from a CustomResourceDefinition: its hub is
	// *unstructured.Unstructured and it is stored as JSON.
	Custom bool
	// Unpublished says that OpenAPI documents say nothing of the kind.
	Unpublished bool
	// Closing, when set, says whether the kind is about to go with its objects: none
	// is created any more.
	Closing func() bool
	// Identity tells a custom kind from the same one as it was defined before.
	Identity string
}

// GarbageCollection is a kind's default for the dependents of deleted objects.
type GarbageCollection int

// The defaults there are.
const (
	// GCBackground deletes dependents afterwards.
	GCBackground GarbageCollection = iota
	// GCOrphan leaves dependents alone (ReplicationController, Job).
	GCOrphan
	// GCUnsupported ignores any policy asked for (Event).
	GCUnsupported
)

// Version is one served version of a kind.
type Version struct {
	GroupVersion schema.GroupVersion
	// Kind and Resource differ from the Kind's only where upstream renamed;
	// empty means the same.
	Kind, Resource string
	New            func() Object
	NewList        func() runtime.Object
	// ToHub and FromHub convert; nil where the version's type is the hub.
	// The target is empty and the source must not be modified or kept.
	ToHub   func(in, hub Object) error
	FromHub func(hub, out Object) error
	// FromHubAll, when set, does what FromHub does for many objects in one go;
	// each call costs a request to somewhere else, so that what it returns is
	// worth keeping. It does not modify the hubs.
	FromHubAll func(hubs []Object) ([]Object, error)
	// Default fills absent fields of an object of this version in place.
	Default func(Object)
	// Validate, when set, judges the hub objects of requests in this version, in
	// place of the Rules' Validate and ValidateUpdate; old is nil on create.
	Validate func(obj, old Object) field.ErrorList
	// Behaviour, when set, is how requests in this version behave: custom kinds
	// differ by version.
	Behaviour *Behaviour
	// Coerce makes a custom object fit the version's schema in place: unknown
	// fields go and metadata is made well-formed. With strict it returns what
	// went, and refuses malformed metadata instead of dropping it.
	Coerce func(obj Object, strict bool) (unknown []string, err error)
	// Columns and Cells, when set, print this version instead of the Rules';
	// Cells gets the object in this version.
	Columns []metav1.TableColumnDefinition
	Cells   func(obj Object) []any
	// FieldLabels are the field selectors this version accepts beyond
	// metadata.name and metadata.namespace; nil means the keys of Rules.Fields.
	FieldLabels []string
	// Deprecated is the minor release the version was deprecated in, Removed
	// the one it goes away in, both zero for a current version; Replacement
	// is named in the warning.
	Deprecated, Removed int
	Replacement         schema.GroupVersionKind
	// Warning, when set, is sent with every answer in the version.
	Warning string
	// Unserved says that objects may be stored in the version, but that it is
	// not served.
	Unserved bool
	// OptIn says that the version is served only when --runtime-config names it.
	OptIn bool
}

// Behaviour is what a version of a custom kind has in place of what the Kind has, over the
// same hub objects.
type Behaviour struct {
	// Rules are asked how objects are created and changed, and for nothing else.
	Rules       Rules
	Status      *Subresource
	Scale       *Scale
	ResetFields []string
}

// Rules are the behaviour of a kind over its hub type. Every field may be nil.
// Write them typed, with For, and lower them with its method Rules.
type Rules struct {
	// ValidateName checks metadata.name, or with prefix generateName.
	ValidateName func(name string, prefix bool) []string
	// PrepareForCreate clears or sets what a client may not, before admission.
	PrepareForCreate func(ctx context.Context, obj Object)
	// PrepareForUpdate carries over what an update may not change, and bumps
	// metadata.generation when the desired state changed.
	PrepareForUpdate func(ctx context.Context, obj, old Object)
	// Validate judges a new object, ValidateUpdate a changed one (including
	// all that Validate checks which still applies). Metadata is checked by
	// the machine.
	Validate       func(obj Object) field.ErrorList
	ValidateUpdate func(obj, old Object) field.ErrorList
	// Warnings are sent in Warning headers; old is nil on create.
	Warnings func(obj, old Object) []string
	// Canonicalize normalises a valid object before it is stored.
	Canonicalize func(obj Object)
	// CheckGracefulDelete settles options.GracePeriodSeconds and says whether
	// the object is deleted gracefully (marked first, removed later).
	CheckGracefulDelete func(obj Object, options *metav1.DeleteOptions) bool
	// Held says whether something besides metadata.finalizers keeps an object
	// that is being deleted, such as a Namespace's spec.finalizers.
	Held func(obj Object) bool
	// Permanent says why the object of a name is never deleted on its own, ""
	// when it may be.
	Permanent func(name string) string
	// BeforeDelete changes an object at its first deletion, such as by adding
	// a finalizer.
	BeforeDelete func(obj Object)
	// TTL is the time to live in seconds, zero for ever (Events).
	TTL func(obj Object) int64
	// Fields are the selectable fields beyond metadata.name and
	// metadata.namespace, with the object's values.
	Fields func(obj Object) fields.Set
	// Columns and Cells print the kind as a Table; nil means Name and Created At.
	Columns []metav1.TableColumnDefinition
	Cells   func(obj Object) []any
	// Chosen says which object of a list is the default one; its name is shown
	// with a mark behind it. An object shown alone has none.
	Chosen func(list iter.Seq[Object]) Object
	// RowConditions marks rows, such as Completed pods.
	RowConditions func(obj Object) []metav1.TableRowCondition
}

// Subresource is a view of the whole object written on its own.
type Subresource struct {
	// Name is the path segment, such as "status".
	Name string
	// Verbs are the verbs served; nil means get, patch, update.
	Verbs []string
	// PrepareForUpdate keeps everything of old but what this view may change.
	PrepareForUpdate func(ctx context.Context, obj, old Object)
	ValidateUpdate   func(obj, old Object) field.ErrorList
	Warnings         func(obj, old Object) []string
	// ResetFields are the dotted paths a write through this view never owns.
	ResetFields []string
	// NoTable says that this view is not shown as a Table.
	NoTable bool
}

// Scale maps an object to autoscaling/v1 Scale and back.
type Scale struct {
	// Get fills spec.replicas, status.replicas and status.selector; the
	// machine fills metadata. With ErrNoReplicas it returns all the same
	// what there is.
	Get func(obj Object) (*autoscalingv1.Scale, error)
	// Set writes the replicas wanted into obj, a copy.
	Set func(obj Object, replicas int32) error
	// Path is the dotted path of the replicas field ("spec.replicas"), for
	// managedFields.
	Path string
}

// ErrNoReplicas says that an object does not have the field Scale stands for.
type ErrNoReplicas struct{ Path string }

// Error implements error.
func (e ErrNoReplicas) Error() string {
	return fmt.Sprintf("the spec replicas field %q does not exist", e.Path)
}

// Tolerated is the type of what a validation says of a fault that was there
// before and is let pass: its Detail is sent as a warning.
const Tolerated field.ErrorType = "Tolerated"

// StoredVersion returns the Version objects are stored in.
func (k *Kind) StoredVersion() *Version { return k.Version(k.Storage) }

// Version returns the served version gv, or nil.
func (k *Kind) Version(gv schema.GroupVersion) *Version {
	for i := range k.Versions {
		if k.Versions[i].GroupVersion == gv {
			return &k.Versions[i]
		}
	}
	return nil
}

// GroupKind returns the hub's group and kind.
func (k *Kind) GroupKind() schema.GroupKind { return schema.GroupKind{Group: k.Group, Kind: k.Name} }

// GroupResource returns the hub's group and resource.
func (k *Kind) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: k.Group, Resource: k.Resource}
}

// Key returns the store key of an object.
func (k *Kind) Key(namespace, name string) string {
	if k.Namespaced {
		return k.Prefix + "/" + namespace + "/" + name
	}
	return k.Prefix + "/" + name
}
