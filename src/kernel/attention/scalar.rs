//! The path in plain Rust: the definition that the others are held to.

use super::{
    super::{
        lanes::{PARTS, total},
        strided::Strided,
    },
    exp::exp,
    run::{Head, Sequence},
};

pub fn attend(head: &Head, scratch: &mut Sequence, mut y: Strided<f32>) {
    let Head { tokens, size, table, .. } = *head;
    let row = |part: &super::Columns<'_>, i: usize| part.values[i * part.width..][..size].to_vec();
    scratch.scores.resize(tokens, 0.0);
    for i in 0..head.queries {
        let q = row(&head.q, i);
        for (j, score) in scratch.scores.iter_mut().enumerate() {
            let k = row(&head.k, j);
            let Some(table) = table else {
                *score = (0..size).fold(0.0, |sum: f32, d| q[d].mul_add(k[d], sum));
                continue;
            };
            let column = table.middle - i + j;
            *score = (0..size).fold(0.0, |sum: f32, d| {
                let (pk, pq) = (table.pk[d * table.pitch + column], table.pq[d * table.pitch + column]);
                q[d].mul_add(pk, (q[d] + pq).mul_add(k[d], sum))
            });
        }
        // As the instruction `maxps`: what is NaN is passed over, and found again in the sum.
        let largest = scratch.scores.iter().fold(f32::NEG_INFINITY, |most, s| if *s > most { *s } else { most });
        let mut parts = [0f32; PARTS];
        for (j, score) in scratch.scores.iter_mut().enumerate() {
            *score = exp(*score - largest);
            parts[j % PARTS] += *score;
        }
        let sum = total(parts);
        for (d, y) in y.row(i).iter_mut().enumerate() {
            let mixed = scratch.scores.iter().enumerate();
            let mixed = mixed.fold(0f32, |sum, (j, weight)| weight.mul_add(head.v.values[j * head.v.width + d], sum));
            *y = mixed * (1.0 / sum);
        }
    }
}
