// SPDX-License-Identifier: Apache-2.0

// Package list answers which objects of a kind a request asks for: it reads
// the options of lists and watches, selects from the cache's snapshots and
// pages through them.
//
// The API server's verbs list, watch and deletecollection call it. It encodes
// nothing itself (package show does) and does not authorize.
package list

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/apiserver/request"
)

// Options are the parameters of a list or watch, checked.
type Options struct {
	Selection
	// ResourceVersion as it was given; Revision is its value, zero for "0"
	// and for none.
	ResourceVersion string
	Revision        int64
	Match           metav1.ResourceVersionMatch
	// Limit bounds the objects of one answer, zero for all; Continue is the
	// token of the page before.
	Limit    int64
	Continue string
	// Timeout ends a watch; zero is the server's choice.
	Timeout time.Duration
	// SendInitialEvents begins a watch with what exists, and Bookmarks lets
	// it send bookmarks.
	SendInitialEvents, Bookmarks bool
}

// Parse reads the options from a request's query. The errors are those to
// answer with.
func Parse(in *request.Info, query url.Values) (*Options, error) {
	given := internalversion.ListOptions{}
	if err := scheme.ParameterCodec.DecodeParameters(query, metav1.SchemeGroupVersion, &given); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	watching := in.Verb == "watch"
	given.Watch = watching
	internalversion.SetListOptionsDefaults(&given, true)
	if errs := validation.ValidateListOptions(&given, true); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", errs)
	}
	o := &Options{
		ResourceVersion: given.ResourceVersion,
		Match:           given.ResourceVersionMatch,
		Limit:           max(given.Limit, 0),
		Continue:        given.Continue,
		Bookmarks:       given.AllowWatchBookmarks,
	}
	if given.TimeoutSeconds != nil {
		o.Timeout = time.Duration(*given.TimeoutSeconds) * time.Second
	}
	o.SendInitialEvents = given.SendInitialEvents != nil && *given.SendInitialEvents
	o.Served, o.Namespace = in.Served, in.ObjectNamespace()
	if given.LabelSelector != nil && !given.LabelSelector.Empty() {
		o.Labels = given.LabelSelector
	}
	if err := o.selectFields(in, given.FieldSelector); err != nil {
		return nil, err
	}
	if err := o.parseRevision(watching); err != nil {
		return nil, err
	}
	return o, nil
}

// selectFields checks the field selector, adds the name that a watch's path
// gives, and takes the terms out that the store's keys answer.
func (o *Options) selectFields(in *request.Info, selector fields.Selector) error {
	if selector != nil && !selector.Empty() {
		for _, term := range selector.Requirements() {
			if err := supported(in.Served, term.Field); err != nil {
				return apierrors.NewBadRequest(err.Error())
			}
		}
		o.Fields = selector
	}
	if in.Name != "" {
		if o.Fields == nil {
			o.Fields = fields.OneTermEqualSelector("metadata.name", in.Name)
		} else if name, ok := o.Fields.RequiresExactMatch("metadata.name"); !ok || name != in.Name {
			return apierrors.NewBadRequest("fieldSelector metadata.name doesn't match requested name")
		}
	}
	if o.Fields == nil {
		return nil
	}
	o.Name, _ = o.Fields.RequiresExactMatch("metadata.name")
	if terms := o.Fields.Requirements(); o.Name != "" && len(terms) == 1 {
		o.Fields = nil // the name says all
		return nil
	}
	if namespace, ok := o.Fields.RequiresExactMatch("metadata.namespace"); ok && in.Kind.Namespaced && o.Namespace == "" {
		o.Namespace = namespace
	}
	return nil
}

// supported says whether a field can be selected by. Upstream words the
// refusal as each group's conversion does.
func supported(s *request.Served, label string) error {
	switch {
	case label == "metadata.name":
		return nil
	case label == "metadata.namespace":
		if s.Kind.Group == "" && !s.Kind.Namespaced && s.Kind.Resource != "persistentvolumes" {
			return fmt.Errorf("field label not supported: %s", label)
		}
		return nil
	}
	known := s.Version.FieldLabels
	if known == nil && s.Kind.Rules.Fields != nil {
		for key := range s.Kind.Rules.Fields(s.Kind.New()) {
			known = append(known, key)
		}
	}
	for _, key := range known {
		if key == label {
			return nil
		}
	}
	switch {
	case s.Kind.Custom:
		return fmt.Errorf("field label not supported: %s", label)
	case len(known) == 0:
		return fmt.Errorf("%q is not a known field selector: only %q, %q", label, "metadata.name", "metadata.namespace")
	case s.Kind.Group == "batch":
		return fmt.Errorf("field label %q not supported for %s", label, s.GVK.Kind)
	case s.Kind.Group == "resource.k8s.io":
		return fmt.Errorf("field label not supported for %s: %s", s.GVK, label)
	}
	return fmt.Errorf("field label not supported: %s", label)
}

// parseRevision reads the resourceVersion; a list words the error otherwise
// than a watch.
func (o *Options) parseRevision(watching bool) error {
	if o.ResourceVersion == "" || o.ResourceVersion == "0" {
		return nil
	}
	revision, err := strconv.ParseUint(o.ResourceVersion, 10, 64)
	if err == nil {
		o.Revision = int64(min(revision, 1<<63-1))
		return nil
	}
	invalid := field.Invalid(field.NewPath("resourceVersion"), o.ResourceVersion, err.Error())
	if watching {
		return invalid
	}
	return apierrors.NewBadRequest("invalid resource version: " + invalid.Error())
}

// String names the selection for logs.
func (o *Options) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s namespace=%q", o.Served.GVR, o.Namespace)
	if o.Name != "" {
		fmt.Fprintf(&b, " name=%q", o.Name)
	}
	if o.Labels != nil {
		fmt.Fprintf(&b, " labels=%q", o.Labels)
	}
	if o.Fields != nil {
		fmt.Fprintf(&b, " fields=%q", o.Fields)
	}
	return b.String()
}
