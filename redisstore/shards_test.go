package redisstore_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// Programs that were told different numbers of shards would see different parts of one store. The first makes it, also if all
// come at once; the others are refused, and told what is right. So it is with a store that an earlier version made.
func TestTheNumberOfShardsStandsFast(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, &redisserver.ClusterOptions{NoReplicas: true})
	numbers := []int{1, 2, 5, 9}
	for round := range 4 {
		url := func(n int) string { return fmt.Sprintf("%s?shards=%d&ns=round-%d", c.URL(), n, round) }
		errs := make([]error, len(numbers))
		var wg sync.WaitGroup
		for i, n := range numbers {
			wg.Go(func() {
				s, err := redisstore.Open(t.Context(), url(n), nil)
				if errs[i] = err; err == nil {
					errs[i] = s.Close()
				}
			})
		}
		wg.Wait()
		first := -1
		for i, err := range errs {
			switch {
			case err == nil && first < 0:
				first = i
			case err == nil:
				t.Errorf("round %d: opened with %d and with %d shards", round, numbers[first], numbers[i])
			case !errors.Is(err, driver.ErrInvalid):
				t.Errorf("round %d: with %d shards: %v", round, numbers[i], err)
			}
		}
		if first < 0 {
			t.Fatalf("round %d: nobody opened it: %v", round, errors.Join(errs...))
		}
		for _, forgets := range []bool{false, true} {
			for i, n := range numbers {
				if forgets {
					s := open(t, url(numbers[first]), nil)
					if err := redisstore.ForgetShards(t.Context(), s); err != nil {
						t.Fatal(err)
					}
				}
				s, err := redisstore.Open(t.Context(), url(n), nil)
				if err == nil {
					err = s.Close()
				}
				if (err == nil) != (i == first) || err != nil && !strings.Contains(err.Error(), fmt.Sprintf("this URL says %d", n)) {
					t.Errorf("round %d: a store of %d shards, opened with %d, forgotten %v: %v", round, numbers[first], n, forgets, err)
				}
			}
		}
	}
}
