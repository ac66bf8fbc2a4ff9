package namenode

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// metrics is what GET /metrics shows.
type metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.HistogramVec
	deletes  prometheus.Counter
}

func newMetrics(n *NameNode) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "dfs_namenode_call_seconds",
			Help:    "Calls by route and HTTP status.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}, []string{"method", "route", "status"}),
		deletes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dfs_namenode_deletes_ordered_total",
			Help: "Replicas of garbage, and orphans, that this NameNode has ordered DataNodes to delete.",
		}),
	}
	m.registry.MustRegister(m.calls, m.deletes, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newStateCollector(n))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

func (m *metrics) observe(route protocol.Route, status int, took time.Duration) {
	m.calls.WithLabelValues(route.Method, route.Pattern, strconv.Itoa(status)).Observe(took.Seconds())
}

// stateCollector reads the state when it is asked, so that nothing has to be
// kept up to date.
type stateCollector struct {
	n                                                  *NameNode
	leads, term, applied, inodes, chunks, uploads, dns *prometheus.Desc
	garbage, orphans                                   *prometheus.Desc
	under, missing, draining, over, copies, trims      *prometheus.Desc // of the leader only
}

func newStateCollector(n *NameNode) *stateCollector {
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("dfs_namenode_"+name, help, labels, nil)
	}
	return &stateCollector{
		n:        n,
		leads:    describe("leads", "1 while this NameNode is the leader."),
		term:     describe("raft_term", "Raft term."),
		applied:  describe("applied_index", "Index of the last log entry applied."),
		inodes:   describe("inodes", "Files and directories."),
		chunks:   describe("chunks", "Chunks that the namespace knows."),
		uploads:  describe("uploads", "Uploads that are open."),
		dns:      describe("datanodes", "DataNodes by state.", "state"),
		under:    describe("chunks_under_replicated", "Chunks with too few live replicas when the leader last looked."),
		missing:  describe("chunks_missing", "Chunks without a live replica when the leader last looked."),
		draining: describe("chunks_draining", "Chunks with too few replicas on DataNodes in service, but enough in all, when the leader last looked."),
		over:     describe("chunks_over_replicated", "Chunks with more live replicas than wanted when the leader last looked."),
		trims:    describe("trims_under_way", "Replicas too many that the leader has ordered to be removed and that are not reported as gone yet."),
		copies:   describe("copies_under_way", "Copies that the leader has ordered and that are not reported yet."),
		garbage:  describe("chunks_garbage", "Chunks that no file and no upload uses and that DataNodes still hold."),
		orphans:  describe("replicas_orphaned", "Replicas on DataNodes of chunks that the namespace does not know."),
	}
}

// Describe implements prometheus.Collector.
func (s *stateCollector) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.leads, s.term, s.applied, s.inodes, s.chunks, s.uploads, s.dns, s.garbage, s.orphans, s.under, s.missing, s.draining, s.over, s.copies, s.trims} {
		descriptions <- d
	}
}

// Collect implements prometheus.Collector.
func (s *stateCollector) Collect(values chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		values <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	leads := 0.0
	if l := s.n.lead.Load(); l != nil {
		leads = 1
		copies, trims := l.underWay()
		gauge(s.copies, float64(copies))
		gauge(s.trims, float64(trims))
		if report := l.surveyed.Load(); report != nil {
			gauge(s.under, float64(report.Under))
			gauge(s.missing, float64(report.Missing))
			gauge(s.draining, float64(report.Draining))
			gauge(s.over, float64(report.Over))
		}
	}
	var inodes, chunks, uploads, garbage, orphans int
	var nodes []fsm.Node
	s.n.machine.Read(func(state *fsm.State) {
		inodes, chunks, uploads = state.Counts()
		garbage, orphans = state.Reclaimable()
		nodes = state.Nodes()
	})
	states := map[string]int{
		protocol.StateUp: 0, protocol.StateSuspect: 0, protocol.StateDown: 0,
		protocol.StateDraining: 0, protocol.StateDrained: 0,
	}
	for i := range nodes {
		states[stateOf(&nodes[i])]++
	}
	gauge(s.leads, leads)
	gauge(s.term, float64(s.n.group.Term()))
	gauge(s.applied, float64(s.n.appliedIndex()))
	gauge(s.inodes, float64(inodes))
	gauge(s.chunks, float64(chunks))
	gauge(s.uploads, float64(uploads))
	gauge(s.garbage, float64(garbage))
	gauge(s.orphans, float64(orphans))
	for state, count := range states {
		gauge(s.dns, float64(count), state)
	}
}
