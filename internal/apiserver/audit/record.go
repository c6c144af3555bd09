// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	auditapi "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"sigs.k8s.io/yaml"

	"kaji/internal/api"
	"kaji/internal/apiserver/request"
)

// Record is the event of one request while it is answered. A nil Record
// records nothing.
type Record struct {
	// ctx is the request's; the sinks' counters want it at every stage.
	ctx   context.Context //nolint:containedctx // a record lives as long as its request
	event *audit.AuditContext
	level auditapi.Level
	bare  bool // leave managedFields out
}

type recordKey struct{}

func of(ctx context.Context) *Record {
	rec, _ := ctx.Value(recordKey{}).(*Record)
	return rec
}

// At says whether the request of ctx is recorded at level or above.
func At(ctx context.Context, level auditapi.Level) bool {
	rec := of(ctx)
	return rec != nil && rec.level.GreaterOrEqual(level)
}

// Request records the object a client sent, in the version it was sent in. It
// does not keep obj.
func Request(ctx context.Context, in *request.Info, obj runtime.Object) {
	rec := of(ctx)
	if rec == nil {
		return
	}
	encode := func(io.Writer) error { return nil }
	if rec.level.GreaterOrEqual(auditapi.LevelRequest) {
		obj = defaulted(in, obj)
		sent := obj
		encode = func(w io.Writer) error { return json.NewEncoder(w).Encode(rec.strip(sent)) }
	}
	// The reference wants the names of the object, and its managed fields are
	// dropped here already: a small stand-in is enough for both.
	var named runtime.Object = &metav1.PartialObjectMetadata{}
	if m, err := meta.Accessor(obj); err == nil {
		named = &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Name: m.GetName(), Namespace: m.GetNamespace(), UID: m.GetUID(), ResourceVersion: m.GetResourceVersion(),
		}}
	}
	audit.LogRequestObject(ctx, named, in.GVR().GroupVersion(), in.GVR(), in.Subresource, encoder(encode))
}

// defaulted returns the object with the defaults its version has: a client's
// object is recorded as the server understands it.
func defaulted(in *request.Info, obj runtime.Object) runtime.Object {
	o, ok := obj.(api.Object)
	if !ok || in.Subresource != "" || in.Served == nil || in.Version.Default == nil {
		return obj
	}
	o = o.DeepCopyObject().(api.Object)
	in.Version.Default(o)
	return o
}

// strip returns obj without managed fields, when the policy wants that.
func (r *Record) strip(obj runtime.Object) runtime.Object {
	m, err := meta.Accessor(obj)
	if !r.bare || err != nil || len(m.GetManagedFields()) == 0 {
		return obj
	}
	obj = obj.DeepCopyObject()
	if m, err = meta.Accessor(obj); err == nil {
		m.SetManagedFields(nil)
	}
	return obj
}

// Patch records a patch as it was sent.
func Patch(ctx context.Context, patch []byte) {
	rec := of(ctx)
	if rec == nil || rec.level.Less(auditapi.LevelRequest) {
		return
	}
	if !json.Valid(patch) {
		var err error
		if patch, err = yaml.YAMLToJSON(patch); err != nil {
			return // it will be refused as well
		}
	}
	rec.event.LogRequestPatch(patch)
}

// Answer records a Status that answers the request.
func Answer(ctx context.Context, status *metav1.Status) {
	rec := of(ctx)
	if rec == nil {
		return
	}
	var body *runtime.Unknown
	if rec.level.GreaterOrEqual(auditapi.LevelRequestResponse) {
		body = rec.encoded(func() ([]byte, error) { return json.Marshal(status) })
	}
	rec.event.LogResponseObject(status, body)
}

// Response records the object that answers the request. encode returns its
// JSON and is called only when the policy asks for it.
func Response(ctx context.Context, encode func() ([]byte, error)) {
	rec := of(ctx)
	if rec == nil || rec.level.Less(auditapi.LevelRequestResponse) {
		return
	}
	rec.event.LogResponseObject(nil, rec.encoded(encode))
}

func (r *Record) encoded(encode func() ([]byte, error)) *runtime.Unknown {
	data, err := encode()
	if err == nil && r.bare {
		data, err = withoutManagedFields(data)
	}
	if err != nil {
		audit.HandlePluginError("encode", err)
		return nil
	}
	return &runtime.Unknown{Raw: data, ContentType: runtime.ContentTypeJSON}
}

// withoutManagedFields drops them from an object, from the items of a list and
// from the rows of a table.
func withoutManagedFields(data []byte) ([]byte, error) {
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	drop(doc)
	for _, field := range []string{"items", "rows"} {
		all, _ := doc[field].([]any)
		for _, item := range all {
			one, _ := item.(map[string]any)
			if row, ok := one["object"].(map[string]any); ok && field == "rows" {
				one = row
			}
			drop(one)
		}
	}
	return json.Marshal(doc)
}

func drop(doc map[string]any) {
	if m, ok := doc["metadata"].(map[string]any); ok {
		delete(m, "managedFields")
	}
}

// answered notes the status code before the answer's first byte.
func (r *Record) answered(code int, started bool) {
	r.event.SetEventResponseStatusCode(int32(code))
	if started {
		r.event.ProcessEventStage(r.ctx, auditapi.StageResponseStarted)
	}
}

// complete records the end of the request.
func (r *Record) complete(long bool) {
	if r.event.GetEventResponseStatus() == nil {
		r.event.SetEventResponseStatus(&metav1.Status{Code: http.StatusOK, Status: metav1.StatusSuccess, Message: "Connection closed early"})
		if long {
			r.event.ProcessEventStage(r.ctx, auditapi.StageResponseStarted)
		}
	}
	const slow = 500 * time.Millisecond
	if took := time.Since(r.event.GetEventRequestReceivedTimestamp().Time); took > slow {
		audit.AddAuditAnnotation(r.ctx, "apiserver.latency.k8s.io/total", took.String())
	}
	r.event.ProcessEventStage(r.ctx, auditapi.StageResponseComplete)
}

func (r *Record) panicked(reason any) {
	r.event.SetEventResponseStatus(&metav1.Status{
		Code: http.StatusInternalServerError, Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError,
		Message: fmt.Sprintf("APIServer panic'd: %v", reason),
	})
	r.event.ProcessEventStage(r.ctx, auditapi.StagePanic)
}

// encoder is the serializer of one object whose encoding is known.
type encoder func(io.Writer) error

var _ runtime.NegotiatedSerializer = encoder(nil)

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (e encoder) SupportedMediaTypes() []runtime.SerializerInfo {
	return []runtime.SerializerInfo{{MediaType: runtime.ContentTypeJSON}}
}

// EncoderForVersion implements runtime.NegotiatedSerializer.
func (e encoder) EncoderForVersion(runtime.Encoder, runtime.GroupVersioner) runtime.Encoder { return e }

// DecoderToVersion implements runtime.NegotiatedSerializer; nothing decodes.
func (e encoder) DecoderToVersion(runtime.Decoder, runtime.GroupVersioner) runtime.Decoder {
	return nil
}

// Encode implements runtime.Encoder.
func (e encoder) Encode(_ runtime.Object, w io.Writer) error { return e(w) }

// Identifier implements runtime.Encoder.
func (e encoder) Identifier() runtime.Identifier { return "audit" }
