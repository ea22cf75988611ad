//! System catalogs that say the same on a standby as on the primary, once it has replayed what they say, and the functions
//! that explain them: what `reads.catalog_reads = "standby"` is about (routing.md §2.4).
//!
//! PostgreSQL manual, 53 (System Catalogs) and 54 (System Views). What tells of the node, of its sessions, or of files is in
//! no list: it is the primary's to answer.

#[rustfmt::skip]
static RELATIONS: &[&str] = &[
    "pg_aggregate", "pg_am", "pg_amop", "pg_amproc", "pg_attrdef", "pg_attribute", "pg_auth_members", "pg_authid",
    "pg_cast", "pg_class", "pg_collation", "pg_constraint", "pg_conversion", "pg_database", "pg_db_role_setting",
    "pg_default_acl", "pg_depend", "pg_description", "pg_enum", "pg_event_trigger", "pg_extension",
    "pg_foreign_data_wrapper", "pg_foreign_server", "pg_foreign_table", "pg_group", "pg_index", "pg_indexes",
    "pg_inherits", "pg_init_privs", "pg_language", "pg_matviews", "pg_namespace", "pg_opclass", "pg_operator",
    "pg_opfamily", "pg_parameter_acl", "pg_partitioned_table", "pg_policies", "pg_policy", "pg_proc", "pg_publication",
    "pg_publication_namespace", "pg_publication_rel", "pg_range", "pg_rewrite", "pg_roles", "pg_rules",
    "pg_seclabel", "pg_sequence", "pg_shdepend", "pg_shdescription", "pg_shseclabel", "pg_statistic_ext",
    "pg_tables", "pg_tablespace", "pg_transform", "pg_trigger", "pg_ts_config", "pg_ts_config_map", "pg_ts_dict",
    "pg_ts_parser", "pg_ts_template", "pg_type", "pg_user", "pg_user_mapping", "pg_views",
];

/// Each is declared stable, and reads nothing but those.
#[rustfmt::skip]
static FUNCTIONS: &[&str] = &[
    "has_any_column_privilege", "has_column_privilege", "has_database_privilege", "has_foreign_data_wrapper_privilege",
    "has_function_privilege", "has_language_privilege", "has_schema_privilege", "has_sequence_privilege",
    "has_server_privilege", "has_table_privilege", "has_tablespace_privilege", "has_type_privilege",
    "pg_collation_is_visible", "pg_conversion_is_visible", "pg_describe_object", "pg_encoding_to_char",
    "pg_function_is_visible", "pg_get_constraintdef", "pg_get_expr", "pg_get_function_arg_default",
    "pg_get_function_arguments", "pg_get_function_identity_arguments", "pg_get_function_result",
    "pg_get_function_sqlbody", "pg_get_functiondef", "pg_get_indexdef", "pg_get_partition_constraintdef",
    "pg_get_partkeydef", "pg_get_replica_identity_index", "pg_get_ruledef", "pg_get_serial_sequence",
    "pg_get_statisticsobjdef", "pg_get_triggerdef", "pg_get_userbyid", "pg_get_viewdef", "pg_has_role",
    "pg_identify_object", "pg_opclass_is_visible", "pg_operator_is_visible", "pg_opfamily_is_visible",
    "pg_options_to_table", "pg_statistics_obj_is_visible", "pg_table_is_visible", "pg_ts_config_is_visible",
    "pg_ts_dict_is_visible", "pg_ts_parser_is_visible", "pg_ts_template_is_visible", "pg_type_is_visible",
];

/// Whether a relation of this name in a system schema, or in none that is named, is one of them.
pub(super) fn is_replicated_relation(schema: &str, name: &str) -> bool {
    match schema {
        "information_schema" => true,
        "" | "pg_catalog" => RELATIONS.binary_search(&name).is_ok(),
        _ => false,
    }
}

/// Whether a built-in function of this name is.
pub(super) fn is_replicated_function(name: &str) -> bool {
    FUNCTIONS.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::function::PRIMARY;

    #[test]
    fn lists_are_sorted_and_of_what_the_primary_answers_else() {
        for list in [RELATIONS, FUNCTIONS] {
            assert!(list.windows(2).all(|pair| pair[0] < pair[1]));
        }
        let known = |name: &&str| PRIMARY.binary_search(name).is_ok();
        assert!(FUNCTIONS.iter().all(known));
    }

    #[test]
    fn what_tells_of_the_node_is_in_no_list() {
        for name in [
            "pg_stat_activity",
            "pg_locks",
            "pg_settings",
            "pg_sequences",
            "pg_largeobject",
            "pg_prepared_xacts",
            "pg_replication_slots",
            "pg_available_extensions",
            "pg_timezone_names",
            "pg_stats",
        ] {
            assert!(!is_replicated_relation("", name), "{name}");
            assert!(!is_replicated_relation("pg_catalog", name), "{name}");
        }
        assert!(!is_replicated_relation("pg_toast", "pg_class"));
        assert!(is_replicated_relation("information_schema", "tables"));
        for name in [
            "pg_is_in_recovery",
            "pg_my_temp_schema",
            "version",
            "current_setting",
        ] {
            assert!(!is_replicated_function(name), "{name}");
        }
    }
}
