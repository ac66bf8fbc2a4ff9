package datanode

import "github.com/prometheus/client_golang/prometheus"

// orderMetrics are about what is ordered, confirmed and suspected.
type orderMetrics struct {
	orders        *prometheus.CounterVec
	deleted       prometheus.Counter
	trimmed       prometheus.Counter
	confirmations *prometheus.CounterVec
	suspicions    *prometheus.CounterVec
}

func newOrderMetrics() orderMetrics {
	return orderMetrics{
		orders:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dfs_datanode_orders_total", Help: "Orders of leaders, by kind and result: done, failed, refused (not understood, or of a term that is over), dropped (too many) or expired."}, []string{"kind", "result"}),
		deleted:       prometheus.NewCounter(prometheus.CounterOpts{Name: "dfs_datanode_deleted_chunks_total", Help: "Chunks deleted by order, because nothing uses them."}),
		trimmed:       prometheus.NewCounter(prometheus.CounterOpts{Name: "dfs_datanode_trimmed_chunks_total", Help: "Replicas given up by order, after enough keepers confirmed theirs."}),
		confirmations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dfs_datanode_confirmations_total", Help: "Replicas that other nodes asked about before they gave up theirs, by result: confirmed or refused."}, []string{"result"}),
		suspicions:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dfs_datanode_suspicions_total", Help: "Chunks that readers found bad, by what came of it: damaged, unfounded, unreadable or dropped (verified a moment ago, or too many)."}, []string{"result"}),
	}
}

func (m orderMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.orders, m.deleted, m.trimmed, m.confirmations, m.suspicions}
}
