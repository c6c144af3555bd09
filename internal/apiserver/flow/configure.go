// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"cmp"
	"hash/maphash"
	"math"
	"slices"
	"sync/atomic"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"kaji/internal/apiserver/flow/fair"
)

// level is a PriorityLevelConfiguration in force.
type level struct {
	name   string
	uid    []string // as a header
	exempt bool
	fair   *fair.Level
	widest atomic.Int64 // most seats of one request; 0 means no such bound

	// The rest is guarded by Flow.mu.
	shares, hand           int
	lendable, borrowing    *int32 // percent
	nominal, lowest, upper int
	demand                 fair.Demand
	smoothed, target       float64
}

// configure puts the given objects into force, and the mandatory ones that are
// not among them. Schemas of levels that do not exist are left out.
func (f *Flow) configure(schemas []*flowcontrolv1.FlowSchema, levels []*flowcontrolv1.PriorityLevelConfiguration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	levels = withMandatory(levels, bootstrap.MandatoryPriorityLevelConfigurations)
	schemas = withMandatory(schemas, bootstrap.MandatoryFlowSchemas)
	kept := make(map[string]*level, len(levels))
	for _, object := range levels {
		// A level that is gone goes on for the requests it has.
		kept[object.Name] = f.levelOf(object)
	}
	f.levels = kept
	f.share()
	t := &table{}
	precedence := map[string]int32{}
	for _, object := range schemas {
		precedence[object.Name] = object.Spec.MatchingPrecedence
		l := kept[object.Spec.PriorityLevelConfiguration.Name]
		if l == nil {
			continue
		}
		s := &schema{
			name: object.Name, uid: []string{string(object.UID)}, level: l,
			hash: maphash.String(f.seed, object.Name), by: distinguisherOf(object.Spec.DistinguisherMethod), rules: object.Spec.Rules,
		}
		f.metrics.of(s)
		t.schemas = append(t.schemas, s)
		if s.name == flowcontrolv1.FlowSchemaNameCatchAll {
			t.fallback = s
		}
	}
	slices.SortFunc(t.schemas, func(a, b *schema) int {
		return cmp.Or(cmp.Compare(precedence[a.name], precedence[b.name]), cmp.Compare(a.name, b.name))
	})
	f.table.Store(t)
}

// withMandatory returns objects with those mandatory ones that are missing.
func withMandatory[T interface{ GetName() string }](objects, mandatory []T) []T {
	objects = slices.Clone(objects)
	for _, m := range mandatory {
		if !slices.ContainsFunc(objects, func(o T) bool { return o.GetName() == m.GetName() }) {
			objects = append(objects, m)
		}
	}
	return objects
}

// levelOf returns the level of an object, the one there is if it goes on.
func (f *Flow) levelOf(object *flowcontrolv1.PriorityLevelConfiguration) *level {
	exempt := object.Spec.Type == flowcontrolv1.PriorityLevelEnablementExempt
	old := f.levels[object.Name]
	l := &level{name: object.Name, uid: []string{string(object.UID)}, exempt: exempt}
	if old != nil && old.exempt == exempt && old.uid[0] == l.uid[0] {
		l = old
	} else if old != nil && old.exempt == exempt {
		l.fair, l.smoothed = old.fair, old.smoothed // its requests count on
	}
	var queueing fair.Queueing
	if e := object.Spec.Exempt; e != nil {
		l.shares, l.lendable = value(e.NominalConcurrencyShares, 0), e.LendablePercent
	}
	if limited := object.Spec.Limited; limited != nil {
		l.shares, l.lendable, l.borrowing = value(limited.NominalConcurrencyShares, 30), limited.LendablePercent, limited.BorrowingLimitPercent
		if q := limited.LimitResponse.Queuing; q != nil {
			queueing = fair.Queueing{Queues: int(q.Queues), Hand: int(q.HandSize), Length: int(q.QueueLengthLimit)}
		}
	}
	if l.fair == nil {
		l.fair = fair.NewLevel(0, queueing)
	}
	l.fair.Reconfigure(queueing)
	l.hand = queueing.Hand
	return l
}

func value(p *int32, otherwise int) int {
	if p == nil {
		return otherwise
	}
	return int(*p)
}

// share divides the server's seats by the levels' shares.
func (f *Flow) share() {
	sum := 0
	for _, l := range f.levels {
		sum += l.shares
	}
	total := f.cfg.Limits.ReadOnly + f.cfg.Limits.Mutating
	for _, l := range f.levels {
		l.nominal = 0
		if sum > 0 {
			l.nominal = int(math.Ceil(float64(total) * float64(l.shares) / float64(sum)))
		}
		l.lowest = l.nominal - percent(l.nominal, l.lendable, 0)
		l.upper = l.nominal + percent(l.nominal, l.borrowing, total)
		l.widest.Store(0)
		if l.hand > 0 {
			l.widest.Store(int64(max(1, min(int(math.Ceil(float64(l.nominal)*0.15)), l.nominal/l.hand))))
		}
	}
	f.lend()
}

func percent(of int, p *int32, otherwise int) int {
	if p == nil {
		return otherwise
	}
	return int(math.Round(float64(of) * float64(*p) / 100))
}

// borrowEvery is how often levels lend and borrow, and memory how much of a past
// demand is remembered then: half of it after five minutes.
const (
	borrowEvery = 10 * time.Second
	memory      = 0.977
)

// borrow looks from time to time whether levels should lend and borrow. A
// server without requests does nothing.
func (f *Flow) borrow() {
	now := time.Now().UnixNano()
	due := f.adjust.Load()
	if now < due || !f.adjust.CompareAndSwap(due, now+int64(borrowEvery)) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.levels {
		d := l.fair.TakeDemand()
		if d.Over <= 0 {
			continue
		}
		l.demand = d
		envelope := d.Average + d.Deviation
		// Several periods may have gone by without a request.
		past := math.Pow(memory, max(1, d.Over.Seconds()/borrowEvery.Seconds()))
		l.smoothed = max(envelope, past*l.smoothed+(1-past)*envelope)
	}
	f.lend()
}

// lend gives every level its present limit.
func (f *Flow) lend() {
	var names []*level
	var claims []fair.Claim
	left := 0
	for _, l := range f.levels {
		if l.exempt {
			left -= max(l.lowest, min(l.nominal, l.demand.High))
		}
		left += l.nominal
		if !l.exempt {
			low := float64(max(l.lowest, min(l.nominal, l.demand.High)))
			l.target = max(low, l.smoothed)
			names = append(names, l)
			claims = append(claims, fair.Claim{Low: low, High: float64(l.upper), Target: l.target})
		}
	}
	shares, fraction := fair.Allocate(left, claims)
	f.metrics.fraction.Set(fraction)
	for i, l := range names {
		l.fair.SetLimit(int(math.Round(shares[i])))
	}
}
