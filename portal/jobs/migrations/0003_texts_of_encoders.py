from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0002_retention"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="lengths",
            field=models.JSONField(
                default=list,
                help_text="Of an encoder's texts, which follow each other in input_ids.",
            ),
        ),
    ]
