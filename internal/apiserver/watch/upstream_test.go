// SPDX-License-Identifier: Apache-2.0

package watch_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
	suite "k8s.io/apiserver/pkg/storage/testing"

	"kaji/internal/apiserver/cache"
	"kaji/internal/store"
	"kaji/internal/store/memory"
	"kaji/internal/store/pebble"
)

// run is one suite of upstream's on one adapter.
type run func(ctx context.Context, t *testing.T, a *adapter)

// plain is a suite that needs nothing but the interface.
func plain(f func(context.Context, *testing.T, storage.Interface)) run {
	return func(ctx context.Context, t *testing.T, a *adapter) { f(ctx, t, a) }
}

// increase lets the revision grow by a write the cache does not watch, as a
// write to another kind is to upstream's cache of one.
func (a *adapter) increase(ctx context.Context, t *testing.T) int64 {
	r, err := a.store.Commit(ctx, store.Txn{Ops: []store.Op{{Key: "/other/x", Value: []byte("x")}}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Revision
}

// compact forgets what was before a revision, and writes once, as upstream's
// compactor notes the revision in the store.
func (a *adapter) compact(ctx context.Context, t *testing.T, resourceVersion string) {
	revision, err := strconv.ParseInt(resourceVersion, 10, 64)
	if err == nil {
		err = a.store.Compact(ctx, revision)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.increase(ctx, t)
}

// uncached asks for the newest where a suite asks for a limited list at
// revision 0. Our lists at 0 are never cut, as those of upstream's cache are
// not; upstream leaves these cases out when it runs the suites on that cache.
type uncached struct{ *adapter }

func (u uncached) GetList(ctx context.Context, key string, opts storage.ListOptions, out runtime.Object) error {
	if opts.ResourceVersion == "0" && opts.Predicate.Limit > 0 {
		opts.ResourceVersion, opts.ResourceVersionMatch = "", ""
	}
	return u.adapter.GetList(ctx, key, opts, out)
}

// suites are those of k8s.io/apiserver/pkg/storage/testing that have a
// counterpart in our store, cache, lists and watches. Left out are:
//
//   - those that put a transformer between storage and store, which we have
//     below the store's seam: GetListWithErrorAggregation,
//     GetListWithoutErrorAggregation, TransformationFailure, WatchError,
//     WatchWithUnsafeDelete, WatchErrorIsBlockingFurtherEvents,
//     ListResourceVersionMatch, GuaranteedUpdate,
//     GuaranteedUpdateChecksStoredData, DeleteExpectedTransformOrDecodeError,
//     DeleteWithConflictAndMissingExpectedTransformOrDecodeError,
//     DeleteWithSuggestionAndMissingExpectedTransformOrDecodeError;
//   - GetListRecursivePrefix and KeySchema: our lists select by namespace and
//     name, so no directory can be asked for as if it were an object;
//   - Stats, which counts sizes with upstream's own codec and transformer;
//   - WatchInitializationSignal: our signal is request.Started, not flowcontrol's;
//   - OptionalWatchBookmarksWithCorrectResourceVersion, which wants 100 durable
//     writes and a second of sleep done within three seconds, whatever the load;
//   - OptionalProgressNotify: ours are for the cache, which asks the store.
//
// WatchFromZero runs without compaction, as on upstream's cache: ours too still
// knows events that the store has forgotten.
var suites = map[string]run{
	"Create": func(ctx context.Context, t *testing.T, a *adapter) {
		suite.RunTestCreate(ctx, t, a, func(context.Context, *testing.T, string) {})
	},
	"CreateWithTTL":                      plain(suite.RunTestCreateWithTTL),
	"CreateWithKeyExist":                 plain(suite.RunTestCreateWithKeyExist),
	"Get":                                plain(suite.RunTestGet),
	"UnconditionalDelete":                plain(suite.RunTestUnconditionalDelete),
	"ConditionalDelete":                  plain(suite.RunTestConditionalDelete),
	"DeleteWithConflict":                 plain(suite.RunTestDeleteWithConflict),
	"GuaranteedUpdateWithTTL":            plain(suite.RunTestGuaranteedUpdateWithTTL),
	"GuaranteedUpdateWithConflict":       plain(suite.RunTestGuaranteedUpdateWithConflict),
	"ListPaging":                         plain(suite.RunTestListPaging),
	"NamespaceScopedList":                plain(suite.RunTestNamespaceScopedList),
	"DeleteWithSuggestion":               plain(suite.RunTestDeleteWithSuggestion),
	"DeleteWithSuggestionAndConflict":    plain(suite.RunTestDeleteWithSuggestionAndConflict),
	"DeleteWithSuggestionOfDeleted":      plain(suite.RunTestDeleteWithSuggestionOfDeletedObject),
	"ValidateDeletionWithSuggestion":     plain(suite.RunTestValidateDeletionWithSuggestion),
	"ValidateDeletionOnlySuggestion":     plain(suite.RunTestValidateDeletionWithOnlySuggestionValid),
	"PreconditionalDelete":               plain(suite.RunTestPreconditionalDeleteWithSuggestion),
	"PreconditionalDeleteOnlySuggestion": plain(suite.RunTestPreconditionalDeleteWithOnlySuggestionPass),
	"GuaranteedUpdateWithSuggestion":     plain(suite.RunTestGuaranteedUpdateWithSuggestionAndConflict),
	"ListContinuation": func(ctx context.Context, t *testing.T, a *adapter) {
		suite.RunTestListContinuation(ctx, t, a, nil)
	},
	"ListContinuationWithFilter": func(ctx context.Context, t *testing.T, a *adapter) {
		suite.RunTestListContinuationWithFilter(ctx, t, a, nil)
	},
	"ListPaginationRareObject": func(ctx context.Context, t *testing.T, a *adapter) {
		suite.RunTestListPaginationRareObject(ctx, t, a, nil)
	},
	"ListInconsistentContinuation": func(ctx context.Context, t *testing.T, a *adapter) {
		suite.RunTestListInconsistentContinuation(ctx, t, uncached{a}, a.compact)
	},
	"List": func(ctx context.Context, t *testing.T, a *adapter) {
		suite.RunTestList(ctx, t, uncached{a}, a.compact, false, nil)
	},
	"Watch":                         plain(suite.RunTestWatch),
	"DeleteTriggerWatch":            plain(suite.RunTestDeleteTriggerWatch),
	"WatchFromNonZero":              plain(suite.RunTestWatchFromNonZero),
	"DelayedWatchDelivery":          plain(suite.RunTestDelayedWatchDelivery),
	"WatchContextCancel":            plain(suite.RunTestWatchContextCancel),
	"WatcherTimeout":                plain(suite.RunTestWatcherTimeout),
	"WatchDeleteEventHasLatestRV":   plain(suite.RunTestWatchDeleteEventObjectHaveLatestRV),
	"NamespaceScopedWatch":          plain(suite.RunTestNamespaceScopedWatch),
	"ClusterScopedWatch":            plain(suite.RunTestClusterScopedWatch),
	"SendInitialEventsCompat":       plain(suite.RunSendInitialEventsBackwardCompatibility),
	"WatchSemantics":                plain(suite.RunWatchSemantics),
	"WatchSemanticInitialEventsExt": plain(suite.RunWatchSemanticInitialEventsExtended),
	"WatchListMatchSingle":          plain(suite.RunWatchListMatchSingle),
	"WatchFromZero": func(ctx context.Context, t *testing.T, a *adapter) {
		suite.RunTestWatchFromZero(ctx, t, a, nil)
	},
	"WatchDispatchBookmarks": func(ctx context.Context, t *testing.T, a *adapter) {
		suite.RunTestWatchDispatchBookmarkEvents(ctx, t, a, true)
	},
	"ConsistentList": func(ctx context.Context, t *testing.T, a *adapter) {
		suite.RunTestConsistentList(ctx, t, a, a.increase, true, true, true)
	},
	"GetListNonRecursive": func(ctx context.Context, t *testing.T, a *adapter) {
		suite.RunTestGetListNonRecursive(ctx, t, a.increase, a)
	},
	"CompactRevision": func(ctx context.Context, t *testing.T, a *adapter) {
		suite.RunTestCompactRevision(ctx, t, a, a.increase, a.compact)
	},
}

// TestUpstream runs upstream's suites on both engines.
func TestUpstream(t *testing.T) {
	engines := map[string]func(t *testing.T) store.Store{
		"memory": func(*testing.T) store.Store { return memory.New() },
		"pebble": func(t *testing.T) store.Store {
			s, err := pebble.Open(pebble.Config{Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	}
	for engine, open := range engines {
		for name, f := range suites {
			t.Run(fmt.Sprint(engine, "/", name), func(t *testing.T) {
				f(context.Background(), t, adapt(t, open(t), name != "ClusterScopedWatch", cache.Config{}))
			})
		}
	}
}
