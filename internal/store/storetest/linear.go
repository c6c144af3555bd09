// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"kaji/internal/store"
)

// input and output are one call in the recorded history: a Get, or a put or
// deletion of one key, with or without a guard.
type input struct {
	key     string
	read    bool
	delete  bool
	guarded bool
	guard   int64
	value   string
}

type output struct {
	ok       bool // the guard held
	found    bool
	value    string
	mod      int64
	revision int64
}

// register is the model of one key: what it holds, and at which revision.
type register struct {
	found bool
	value string
	mod   int64
	// last is the newest revision this key has seen: it never goes back.
	last int64
}

func model() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			for _, op := range history {
				key := op.Input.(input).key
				byKey[key] = append(byKey[key], op)
			}
			var parts [][]porcupine.Operation
			for _, part := range byKey {
				parts = append(parts, part)
			}
			return parts
		},
		Init: func() any { return register{} },
		Step: func(state, in, out any) (bool, any) { return step(state.(register), in.(input), out.(output)) },
		DescribeOperation: func(in, out any) string {
			return fmt.Sprintf("%+v -> %+v", in, out)
		},
	}
}

func step(s register, in input, out output) (bool, any) {
	if out.revision < s.last {
		return false, s
	}
	if in.read {
		s.last = out.revision
		return out.found == s.found && out.mod == s.mod && out.value == s.value, s
	}
	holds := !in.guarded || in.guard == s.mod
	if out.ok != holds {
		return false, s
	}
	if !holds {
		// The answer carries the present state.
		s.last = out.revision
		return out.mod == s.mod && (!s.found || out.value == s.value), s
	}
	switch {
	case in.delete && !s.found:
	case in.delete:
		if out.revision <= s.last && s.last != 0 {
			return false, s
		}
		s.found, s.value, s.mod = false, "", 0
	default:
		if out.revision <= s.mod {
			return false, s
		}
		s.found, s.value, s.mod = true, in.value, out.revision
	}
	s.last = out.revision
	return true, s
}

// testLinearizable records what concurrent clients see and lets porcupine find
// an order of the calls that explains all of it.
func testLinearizable(t *testing.T, f *fixture) {
	const clients, calls, keys = 6, 60, 3
	var (
		mu      sync.Mutex
		history []porcupine.Operation
		wg      sync.WaitGroup
	)
	begin := time.Now()
	for client := range clients {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(client), 1))
			known := map[string]int64{}
			for i := range calls {
				in := input{
					key:   fmt.Sprintf("/l/%d", random.IntN(keys)),
					value: fmt.Sprintf("%d-%d", client, i),
				}
				in.read = random.IntN(3) == 0
				in.delete = random.IntN(4) == 0
				in.guarded = random.IntN(2) == 0
				in.guard = known[in.key]
				call := time.Since(begin)
				out, err := f.call(in)
				if err != nil {
					t.Errorf("%+v: %v", in, err)
					return
				}
				op := porcupine.Operation{ClientId: client, Input: in, Output: out,
					Call: int64(call), Return: int64(time.Since(begin))}
				known[in.key] = out.mod
				mu.Lock()
				history = append(history, op)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got := porcupine.CheckOperationsTimeout(model(), history, patience); got != porcupine.Ok {
		t.Errorf("the history is not linearizable: %s", got)
	}
}

func (f *fixture) call(in input) (output, error) {
	if in.read {
		kv, found, revision, err := f.s.Get(f.ctx, in.key)
		return output{ok: true, found: found, value: string(kv.Value), mod: kv.ModRevision, revision: revision}, err
	}
	txn := store.Txn{Ops: []store.Op{{Key: in.key, Value: []byte(in.value), Delete: in.delete}}}
	if in.guarded {
		txn.Guards = []store.Guard{{Key: in.key, ModRevision: in.guard}}
	}
	res, err := f.s.Commit(f.ctx, txn)
	if err != nil {
		return output{}, err
	}
	out := output{ok: res.Succeeded, revision: res.Revision}
	switch {
	case !res.Succeeded:
		out.value, out.mod = string(res.Current[0].Value), res.Current[0].ModRevision
		out.found = out.mod != 0
	case !in.delete:
		out.mod = res.Revision
	}
	return out, nil
}
