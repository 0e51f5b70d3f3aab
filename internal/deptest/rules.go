package deptest

import "slices"

// A Rule says what the packages it is for may import. Packages of the module
// are written "./driver", a package with all below it "./driver/...".
type Rule struct {
	Of         string   // the packages; the first rule that fits a package counts
	May        []string // what they may import beside the standard library
	Never      []string // what they must not even reach through others
	TestsNever []string // what their tests must not import
	Why        string   // the rule in words, shown when it is broken
}

const (
	// leaves stands for the internal packages that need nothing but driver and
	// the standard library.
	leaves = "(internal leaf packages)"
	// thirdParty stands for every package outside the module.
	thirdParty = "(third party)"
)

// engines are the packages that implement driver.Store.
var engines = []string{
	"./memstore/...",
	"./pgstore/...",
	"./redisstore/...",
	"./sqlitestore/...",
}

// otherThanMemory are the engines that need a client library.
var otherThanMemory = engines[1:]

// root is the package an application imports.
var root = []string{"."}

// public is what an application can import beside the engines.
var public = []string{".", "./dashboard/...", "./driver", "./httpapi/...", "./stores", "./waggletest"}

// above are the packages that put the others together.
var above = []string{"./cmd/...", "./internal/cli/...", "./stores"}

// library is what is built on the contract without knowing an engine.
var library = []string{".", "./driver", "./internal/..."}

// Rules is the table. The order of the house, from the ground up:
// driver, engines; driver, internal, waggle, handlers; then stores, cli, cmd.
var Rules = []Rule{
	{
		Of:  "./driver",
		May: nil,
		Why: "the contract imports the standard library only",
	},
	{
		Of: "./driver/drivertest/...",
		May: []string{
			"./driver", "./driver/drivertest/...", "./memstore",
			"github.com/google/go-cmp/...", "go.uber.org/goleak", "pgregory.net/rapid",
		},
		Why: "the suite knows the contract, the model and test libraries",
	},

	engine("./memstore/..."),
	engine("./pgstore/...", "github.com/jackc/pgx/v5/..."),
	engine("./redisstore/...", "golang.org/x/sys/unix", "github.com/redis/rueidis/..."),
	engine("./sqlitestore/...", "github.com/fsnotify/fsnotify", "golang.org/x/sys/unix", "zombiezen.com/go/sqlite/...", "modernc.org/sqlite/lib"),

	{
		Of:    ".",
		May:   []string{"./driver", "./internal/..."},
		Never: slices.Concat(engines, above),
		Why:   "the library imports no engine",
	},
	{
		Of:    "./internal/runner/...",
		May:   []string{"./driver", "./internal/..."},
		Never: slices.Concat(engines, above, root),
		Why:   "the runner imports no engine",
	},
	{
		Of:    "./httpapi/...",
		May:   slices.Concat(library, []string{"./httpapi/..."}),
		Never: slices.Concat(engines, above),
		Why:   "the HTTP API is built on the client only",
	},
	{
		Of:    "./dashboard/...",
		May:   slices.Concat(library, []string{"./dashboard/..."}),
		Never: slices.Concat(engines, above),
		Why:   "the dashboard is built on the client only",
	},
	{
		Of:    "./waggletest/...",
		May:   slices.Concat(library, []string{"./memstore"}),
		Never: slices.Concat(otherThanMemory, above),
		Why:   "the test kit brings the in-memory engine and no other",
	},

	{
		Of:    "./stores",
		May:   slices.Concat([]string{"./driver", leaves}, engines),
		Never: slices.Concat(root, []string{"./cmd/...", "./internal/cli/..."}),
		Why:   "stores joins the engines to URL schemes and knows nothing else",
	},
	{
		Of:    "./internal/cli/...",
		May:   slices.Concat(library, []string{"./dashboard/...", "./httpapi/...", "./stores", thirdParty}),
		Never: []string{"./cmd/..."},
		Why:   "commands get their engine from package stores",
	},
	{
		Of:    "./internal/figures",
		May:   slices.Concat(library, engines, []string{"./stores", thirdParty}),
		Never: []string{"./cmd/..."},
		Why:   "the figures are measured on the library, the engines and the command itself",
	},
	{
		Of:  "./cmd/waggle",
		May: []string{"./internal/cli"},
		Why: "main calls internal/cli and nothing else",
	},

	{
		Of:  "./examples/chat/...",
		May: slices.Concat(engines, public, []string{"./examples/chat/...", "./examples/stage/...", "./internal/freeport", "./internal/redisserver", thirdParty}),
		Why: "the chat is an example, and starts servers of its own as the demo does",
	},
	{
		Of:  "./examples/...",
		May: slices.Concat(engines, public, []string{"./examples/...", thirdParty}),
		Why: "an example shows what a user can write: no internal package",
	},
	{
		Of:    "./internal/...",
		May:   []string{"./driver", "./internal/...", thirdParty},
		Never: slices.Concat(engines, above, root),
		Why:   "only stores and the commands are above the library and the engines",
	},
}

// engine is the rule of one engine: it knows the contract, its client library
// and leaf packages. Its tests may compare it with memstore, the model.
func engine(of string, client ...string) Rule {
	isSelf := func(e string) bool { return e == of }
	isModel := func(e string) bool { return e == "./memstore/..." }
	others := slices.DeleteFunc(slices.Clone(engines), isSelf)
	return Rule{
		Of:         of,
		May:        slices.Concat([]string{"./driver", leaves, of}, client),
		Never:      slices.Concat(others, above, root),
		TestsNever: slices.DeleteFunc(slices.Clone(others), isModel),
		Why:        "an engine knows driver, its client library and leaf packages; no other engine, and not waggle",
	}
}
