// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"encoding/json"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditapi "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// appendEvent appends an event as JSON of audit.k8s.io/v1, what encoding/json
// makes of it: every request has two of them, and that way costs as much as all
// other stations. Parts that few events have are left to it.
func appendEvent(b []byte, e *auditapi.Event) ([]byte, error) {
	b = append(b, `{"kind":"Event","apiVersion":"`...)
	b = append(b, auditv1.SchemeGroupVersion.String()...)
	b = appendField(b, `","level":`, string(e.Level))
	b = appendField(b, `,"auditID":`, string(e.AuditID))
	b = appendField(b, `,"stage":`, string(e.Stage))
	b = appendField(b, `,"requestURI":`, e.RequestURI)
	b = appendField(b, `,"verb":`, e.Verb)
	var err error
	if b, err = appendUser(b, e); err != nil {
		return b, err
	}
	if len(e.SourceIPs) > 0 {
		b = appendList(append(b, `,"sourceIPs":`...), e.SourceIPs)
	}
	b = appendOptional(b, `,"userAgent":`, e.UserAgent)
	b = appendReference(b, e.ObjectRef)
	if e.ResponseStatus != nil {
		if b, err = appendStatus(append(b, `,"responseStatus":`...), e.ResponseStatus); err != nil {
			return b, err
		}
	}
	if e.RequestObject != nil {
		if b, err = appendAny(append(b, `,"requestObject":`...), e.RequestObject); err != nil {
			return b, err
		}
	}
	if e.ResponseObject != nil {
		if b, err = appendAny(append(b, `,"responseObject":`...), e.ResponseObject); err != nil {
			return b, err
		}
	}
	b = appendTime(append(b, `,"requestReceivedTimestamp":`...), e.RequestReceivedTimestamp)
	b = appendTime(append(b, `,"stageTimestamp":`...), e.StageTimestamp)
	return append(appendAnnotations(b, e.Annotations), '}'), nil
}

// appendUser appends who asked.
func appendUser(b []byte, e *auditapi.Event) (_ []byte, err error) {
	if len(e.User.Extra) > 0 {
		if b, err = appendAny(append(b, `,"user":`...), e.User); err != nil {
			return b, err
		}
	} else {
		b = append(b, `,"user":{`...)
		at := len(b)
		b = appendOptional(b, `,"username":`, e.User.Username)
		b = appendOptional(b, `,"uid":`, e.User.UID)
		if len(e.User.Groups) > 0 {
			b = appendList(append(b, `,"groups":`...), e.User.Groups)
		}
		b = append(withoutComma(b, at), '}')
	}
	if e.ImpersonatedUser != nil {
		if b, err = appendAny(append(b, `,"impersonatedUser":`...), e.ImpersonatedUser); err != nil {
			return b, err
		}
	}
	if e.AuthenticationMetadata != nil {
		b, err = appendAny(append(b, `,"authenticationMetadata":`...), (*auditv1.AuthenticationMetadata)(e.AuthenticationMetadata))
	}
	return b, err
}

// withoutComma drops the comma that the first field after at begins with.
func withoutComma(b []byte, at int) []byte {
	if len(b) > at {
		return slices.Delete(b, at, at+1)
	}
	return b
}

func appendReference(b []byte, r *auditapi.ObjectReference) []byte {
	if r == nil {
		return b
	}
	b = append(b, `,"objectRef":{`...)
	at := len(b)
	b = appendOptional(b, `,"resource":`, r.Resource)
	b = appendOptional(b, `,"namespace":`, r.Namespace)
	b = appendOptional(b, `,"name":`, r.Name)
	b = appendOptional(b, `,"uid":`, string(r.UID))
	b = appendOptional(b, `,"apiGroup":`, r.APIGroup)
	b = appendOptional(b, `,"apiVersion":`, r.APIVersion)
	b = appendOptional(b, `,"resourceVersion":`, r.ResourceVersion)
	b = appendOptional(b, `,"subresource":`, r.Subresource)
	return append(withoutComma(b, at), '}')
}

func appendStatus(b []byte, s *metav1.Status) ([]byte, error) {
	if s.Code == 0 || *s != (metav1.Status{Code: s.Code}) {
		return appendAny(b, s)
	}
	b = append(b, `{"metadata":{},"code":`...)
	return append(strconv.AppendInt(b, int64(s.Code), 10), '}'), nil
}

func appendAnnotations(b []byte, all map[string]string) []byte {
	if len(all) == 0 {
		return b
	}
	names := make([]string, 0, 8)
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	b = append(b, `,"annotations":{`...)
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, name), ':')
		b = appendText(b, all[name])
	}
	return append(b, '}')
}

func appendField(b []byte, name, value string) []byte { return appendText(append(b, name...), value) }

// appendOptional appends a field unless it is empty.
func appendOptional(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendField(b, name, value)
}

func appendList(b []byte, texts []string) []byte {
	b = append(b, '[')
	for i, text := range texts {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, text)
	}
	return append(b, ']')
}

func appendTime(b []byte, t metav1.MicroTime) []byte {
	if t.IsZero() {
		return append(b, "null"...)
	}
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, metav1.RFC3339Micro)
	return append(b, '"')
}

func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // of a string it cannot fail
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendAny(b []byte, v any) ([]byte, error) {
	data, err := json.Marshal(v)
	return append(b, data...), err
}
