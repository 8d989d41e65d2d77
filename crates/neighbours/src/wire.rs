//! The generated protocols. The files in `proto/` document them.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::wildcard_imports,
    clippy::uninlined_format_args,
    clippy::semicolon_if_nothing_returned,
    clippy::redundant_closure_for_method_calls,
    reason = "generated"
)]

/// KubeArmor's, of `proto/kubearmor/feeder.proto`.
pub mod feeder {
    tonic::include_proto!("feeder");
}

/// Discovery-engine's, of `proto/discovery/observability.proto`.
pub mod discovery {
    tonic::include_proto!("v1.observability");
}

/// Discovery-engine's, of `proto/discovery/publisher.proto`.
pub mod publisher {
    tonic::include_proto!("v1.publisher");
}

/// OpenTelemetry's, of `proto/opentelemetry`; nested as the generated code expects it.
pub mod otlp {
    pub mod common {
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.common.v1");
        }
    }
    pub mod resource {
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.resource.v1");
        }
    }
    pub mod logs {
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.logs.v1");
        }
    }
    pub mod metrics {
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.metrics.v1");
        }
    }
    pub mod collector {
        pub mod logs {
            pub mod v1 {
                tonic::include_proto!("opentelemetry.proto.collector.logs.v1");
            }
        }
        pub mod metrics {
            pub mod v1 {
                tonic::include_proto!("opentelemetry.proto.collector.metrics.v1");
            }
        }
    }
}

/// All of them, for reflection.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
